-- A task is written in the transaction that writes its request, or holds it, and no request is ever deleted. To have every task look its
-- request up once more costs a tenth of taking one in.
ALTER TABLE tasks DROP CONSTRAINT tasks_customer_id_request_id_fkey;
