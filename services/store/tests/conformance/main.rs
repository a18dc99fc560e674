//! One suite over SQLite and PostgreSQL: what the store promises, it promises on both.
//!
//! `QUITTANCE_TEST_POSTGRES_URL` names a server on which databases and roles may be made (`tests/with-servers.sh` starts one).
//! Without it the suite fails, lest it be taken for passed; with `QUITTANCE_TEST_WITHOUT_SERVERS=1` it runs on SQLite alone.

mod attacker;
mod certificates;
mod completion;
mod deadlines;
mod elsewhere;
mod engines;
mod forgetting;
mod halted;
mod harness;
mod held_up;
mod intake;
mod isolation;
mod kept;
mod leases;
mod ledger;
mod lifecycle;
mod listing;
mod liveness;
mod order;
mod packages;
mod renaming;
mod replays;
mod resolving;
mod restrictions;
mod round_trips;
mod sealing;
mod statements;
mod subjects;
mod world;

macro_rules! on {
    ($engine:ident: $($topic:ident { $($case:ident,)+ })+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(mut store) = crate::harness::TestStore::fresh(quittance_sql::Engine::$engine).await {
                    crate::$topic::$case(&mut store).await;
                    store.end().await;
                }
            }
        )+)+
    };
}

/// Runs the cases of each topic on both engines, and those that only one of them can have on that one.
macro_rules! suite {
    (both { $($both:tt)+ } sqlite { $($sqlite:tt)+ } postgres { $($postgres:tt)+ }) => {
        mod sqlite {
            on!(Sqlite: $($both)+ $($sqlite)+);
        }
        mod postgres {
            on!(Postgres: $($both)+ $($postgres)+);
        }
    };
}

suite! {
    both {
        attacker {
            with_everything_but_the_destroyed_key_nothing_that_was_forgotten_opens,
            what_a_hold_or_a_replay_has_kept_does_not_open_without_the_destroyed_key,
        }
        certificates {
            a_completed_request_can_be_certified_from_its_entries,
            an_open_request_can_be_stated_at_any_time,
            what_was_late_is_certified_as_late,
            what_was_declined_is_stated_with_what_had_been_done,
            the_subject_opening_opens_what_was_staged,
            a_forgotten_request_is_certified_all_the_same,
            a_certificate_is_replaced_by_one_only,
            kept_checkpoints_are_read_page_by_page,
        }
        completion {
            a_request_completes_with_its_last_confirmation,
            what_nobody_confirms_is_an_exception,
            a_system_added_meanwhile_is_planned_before_a_request_completes,
            a_request_that_lacks_nothing_after_a_change_completes,
            a_system_that_nothing_leads_to_any_more_is_not_left_out,
            a_replan_with_old_systems_does_nothing,
            a_replan_reaches_every_open_request,
            a_system_added_late_does_not_wait_for_what_has_been,
            a_system_added_while_another_is_at_work_waits_for_it,
            a_task_that_needs_attention_holds_its_request_open,
            a_task_resolved_by_hand_is_lost_to_its_worker,
            what_nobody_comes_for_is_resolved_by_hand,
            late_is_recorded_as_late,
            one_report_may_hold_every_kind_of_result,
        }
        deadlines {
            who_runs_late_is_told_of_once_and_once_more_when_the_time_is_over,
            who_is_not_told_of_to_the_end_is_told_of_again,
            a_moved_due_time_is_told_of_anew,
            of_sweeps_that_race_one_tells,
            a_deadline_statement_is_kept_once_for_each_due_time_that_passed,
            an_erasure_that_is_authorised_late_is_not_told_of_again,
            lists_tell_who_is_late,
        }
        engines {
            a_store_of_a_newer_build_is_refused,
            migrating_twice_changes_nothing,
            a_claim_costs_nothing_for_what_is_finished,
            entries_are_found_by_their_customer_and_batch_though_nothing_was_counted,
        }
        forgetting {
            what_is_over_is_forgotten_and_what_lives_lives_on,
            what_comes_under_a_forgotten_requests_id_is_no_repetition_of_it,
            an_epoch_ends_by_itself_and_no_sooner,
            the_agreement_in_force_says_how_long_is_kept,
            a_rotation_goes_on_wherever_it_was_interrupted,
            what_the_folder_has_before_the_database_is_taken,
            a_destroyed_key_that_comes_back_is_destroyed_again,
            a_key_that_something_needs_is_not_destroyed,
            what_a_worker_still_holds_is_not_forgotten_under_its_hands,
            a_package_of_any_size_is_forgotten,
            the_log_tells_every_customer_of_a_destroyed_key_once,
            what_is_taken_in_while_keys_rotate_is_never_lost,
        }
        subjects {
            whoever_is_instructed_about_again_is_the_same_person,
            a_person_keeps_its_place_by_a_new_name,
            builds_side_by_side_tell_subjects_alike,
            a_line_is_never_broken_while_keys_rotate,
            without_the_destroyed_key_nobody_can_be_looked_for,
            a_key_that_was_away_for_a_while_breaks_nothing,
        }
        intake {
            the_same_instruction_twice_is_one_request,
            the_same_id_with_other_content_is_refused,
            an_instruction_twice_in_one_chunk_is_one_request,
            an_id_is_a_customers_own,
            an_instruction_sent_from_many_places_at_once_is_one_request,
            what_cannot_be_planned_is_refused_alone,
            nothing_is_taken_in_where_there_is_no_system,
            a_chunk_is_taken_in_whole_or_not_at_all,
            a_chunk_planned_with_other_systems_is_refused,
            a_chunk_planned_by_an_agreement_that_has_changed_is_refused,
            what_is_taken_in_is_given_as_it_is_read,
            every_change_of_systems_is_another_generation,
            ids_sort_in_the_order_of_intake,
            a_request_is_dated_by_its_agreement_or_the_controllers_date,
            an_agreement_signed_meanwhile_leaves_open_requests_their_dates,
            a_customer_is_created_once,
            a_request_has_exactly_one_task_for_every_system,
            customers_are_added_to_a_system,
            a_system_is_not_shared_while_a_task_would_not_tell_whose_rows_are_meant,
            a_task_pins_the_version_of_its_map,
            a_recipient_has_a_task_only_where_it_is_to_be_told,
        }
        halted {
            while_the_log_is_halted_nothing_begins_and_no_key_goes,
        }
        isolation {
            the_same_ids_at_two_customers_are_two_requests,
            with_one_customers_id_nothing_of_anothers_is_read,
            with_one_customers_id_nothing_of_anothers_is_changed,
        }
        kept {
            what_is_held_is_erased_on_its_day_though_its_request_is_forgotten,
            what_is_still_held_is_followed_again,
            what_is_held_at_a_system_is_read_page_by_page,
            nothing_is_kept_of_a_task_that_was_lost,
            a_restriction_holds_what_was_held,
            what_was_declined_in_the_end_is_asked_about_first,
            a_follow_up_is_of_one_system_alone,
            the_end_of_a_hold_ends_no_restriction,
            what_was_kept_and_does_not_open_keeps_no_other_hold_from_ending,
            of_sweeps_that_race_one_follows_up,
        }
        leases {
            workers_that_claim_at_once_never_get_the_same_task,
            a_claim_is_of_one_customer_system_and_action,
            a_claim_opens_what_the_work_needs,
            a_lease_that_passed_is_taken_over_under_a_higher_number,
            a_report_under_an_old_lease_records_nothing,
            a_report_after_its_lease_passed_records_nothing,
            a_report_of_a_task_that_was_never_leased_is_lost,
            a_heartbeat_keeps_a_lease,
            a_heartbeat_does_not_bring_a_lost_lease_back,
            what_is_handed_back_is_due_at_once,
            a_retry_is_not_due_before_its_time,
            the_longest_due_is_claimed_first,
            who_was_served_goes_behind_who_waits,
            a_system_where_hundreds_wait_hides_no_other,
            a_claim_finds_what_another_has_left,
            a_match_set_is_stored_under_a_living_lease_only,
            a_match_set_survives_into_the_next_lease,
            what_does_not_fit_into_an_answer_stays_as_it_is,
            a_task_is_confirmed_once,
            a_task_that_stands_twice_in_a_report_is_confirmed_once,
            a_match_set_sent_twice_at_once_is_stored_once,
            of_reports_that_race_one_is_recorded,
        }
        ledger {
            every_event_is_staged_once_with_its_leaf,
            what_ends_otherwise_is_staged_too,
            what_is_refused_is_not_staged,
            a_request_is_not_decided_about_without_end,
            an_entry_and_what_it_tells_are_one_transaction,
            no_entry_holds_an_identifier,
            commitments_of_one_person_differ,
            a_commitment_opens_with_its_salt,
        }
        lifecycle {
            a_referred_request_waits_for_the_customers_word,
            an_authorised_request_is_planned_with_todays_systems,
            a_declined_request_is_closed_and_never_runs,
            a_request_is_cancelled_before_anything_has_run,
            what_was_ever_leased_is_not_cancelled,
            a_cancellation_and_a_claim_exclude_each_other,
            a_completed_request_is_closed_for_good,
            only_what_waits_is_authorised_or_declined,
            an_objection_holds_what_has_not_begun,
            what_is_put_off_after_an_objection_waits_for_the_customers_word,
            an_objection_that_meets_a_report_strands_nothing,
            an_objection_holds_the_act_of_what_is_being_resolved,
            an_objection_survives_an_operators_retry,
            a_request_completes_that_was_finished_before_it_was_authorised,
            who_objects_and_who_reports_may_lock_each_other_out,
            a_declined_request_is_not_begun_again,
            what_is_at_work_for_a_declined_request_is_waited_for,
            what_was_not_begun_is_not_begun_after_an_objection,
            what_was_done_before_a_request_was_declined_is_recorded,
            the_first_due_date_never_changes,
            an_erasure_that_waited_for_a_word_keeps_its_first_due_date,
            what_is_not_there_is_not_found,
        }
        listing {
            pages_run_from_the_newest_to_the_oldest,
            filters_hold_together,
            a_watch_that_reads_on_misses_no_change,
            times_come_back_to_the_microsecond,
            texts_come_back_to_the_letter,
            a_request_comes_back_as_it_was_instructed,
            ids_are_listed_in_the_order_of_their_bytes,
            a_system_comes_back_as_it_was_registered,
            a_system_is_registered_while_others_never_let_go,
        }
        liveness {
            every_schedule_ends_with_all_confirmed_in_order,
            workers_and_senders_at_once_leave_nothing_undone,
        }
        order {
            instructions_of_one_chunk_keep_their_order,
            instructions_of_separate_chunks_keep_their_order,
            instructions_chain_over_several_identifiers,
            instructions_that_come_at_once_are_in_an_order,
            an_instruction_is_freed_when_its_last_waits_end_at_once,
            an_instruction_that_meets_a_confirmation_is_not_stranded,
            order_is_kept_system_by_system,
            the_same_person_of_another_customer_waits_for_nobody,
            what_is_cancelled_frees_what_waited_for_it,
            what_is_cancelled_between_two_leaves_them_in_order,
            what_follows_a_cancelled_one_waits_for_those_before_it,
            what_needs_attention_holds_back_what_comes_after_it,
            a_task_that_is_tried_again_still_waits_its_turn,
            a_task_is_not_resolved_by_hand_before_it_is_its_turn,
            order_holds_at_a_system_added_meanwhile,
            an_instruction_waits_for_what_is_still_to_be_planned_before_it,
            a_waiting_request_takes_its_place_when_it_is_authorised,
        }
        elsewhere {
            what_waited_for_a_cancelled_one_waits_only_for_what_will_be,
            what_waited_for_a_cancelled_one_waits_for_whoever_was_before,
            nobody_overtakes_where_the_one_between_has_no_task,
            nobody_overtakes_where_the_one_between_is_done,
            what_will_not_be_planned_is_not_waited_for,
            what_will_not_be_planned_is_not_waited_for_behind_another,
            a_person_is_restricted_again_though_a_closed_request_has_kept_its_place,
            a_place_that_is_kept_is_given_up_when_it_is_forgotten,
        }
        packages {
            records_come_back_in_their_order,
            an_upload_counts_when_it_is_whole,
            large_records_make_small_pages,
            records_are_refused_under_a_lost_lease,
            a_second_upload_replaces_the_first,
            an_empty_upload_leaves_nothing,
            only_the_confirmed_attempts_records_are_listed,
            a_task_ended_by_hand_has_no_records,
            third_parties_records_are_left_out_on_demand,
            the_first_release_stands,
        }
        renaming {
            a_changed_identifier_is_carried_after_it_was_changed_where_it_was_named,
            what_is_instructed_under_the_new_name_waits_for_the_change,
            a_restriction_stands_under_the_new_name,
            a_restriction_stands_under_the_new_names_of_its_chunk,
            what_is_only_referred_renames_nobody,
            a_lifting_by_a_new_name_of_its_chunk_ends_what_stands_under_it,
        }
        replays {
            an_erasure_is_carried_out_again_by_a_request_of_its_own,
            a_follow_up_is_one_request_though_it_is_forgotten_before_it_is_noted,
            a_follow_up_that_is_open_is_not_planned_elsewhere,
            only_what_was_confirmed_since_the_snapshot_is_carried_out_again,
            a_person_who_is_found_by_two_names_is_one_request,
            a_restriction_is_carried_out_again_and_a_lifted_one_is_not,
            a_lifting_of_what_the_snapshot_has_restricted_is_carried_out_again,
            a_restriction_is_not_redone_behind_what_is_instructed_meanwhile,
            a_restriction_is_not_redone_behind_what_was_done_meanwhile,
            an_erasure_again_waits_for_the_customer_where_a_restriction_stands,
            rectifications_are_listed_for_the_customer,
            what_was_instructed_under_a_new_name_is_carried_out_under_the_old_one,
            what_nothing_leads_to_is_listed,
            nothing_sealed_of_the_original_is_needed,
            a_rotation_in_between_does_not_matter,
            who_sweeps_nothing_writes_by_the_newest_generation_too,
            a_generation_goes_with_the_last_that_was_kept_under_it,
            what_an_open_replay_needs_stays,
            a_replay_that_is_run_again_instructs_nothing_twice,
            a_dry_run_keeps_nothing_of_what_it_saw,
            a_replay_is_asked_for_once,
            a_replay_that_is_asked_for_many_times_at_once_is_one,
            what_was_matched_is_instructed_after_the_keys_were_turned_over,
            nothing_is_replayed_from_before_anything_was_kept,
            a_lost_key_is_said_before_anything_is_matched,
            every_replay_is_on_record_with_counts_alone,
            a_cancelled_replay_instructs_nothing_more,
            nothing_is_kept_where_no_backup_lives,
        }
        resolving {
            what_a_system_yields_reaches_those_that_wait_for_it,
            in_an_erasure_the_yielding_system_acts_last,
            who_waits_goes_on_when_nothing_was_found,
            what_waits_says_what_for,
            a_task_that_was_asked_to_resolve_is_not_confirmed_by_it,
            a_resolve_is_tried_again_as_one,
            giving_up_the_yielding_system_strands_nobody,
            yields_chain,
            finds_that_come_at_once_are_all_kept,
        }
        restrictions {
            an_erasure_waits_for_the_customer_where_the_data_was_to_be_kept,
            other_grounds_hold_no_erasure_back,
            a_restriction_stands_before_it_is_carried_out,
            a_restriction_and_an_erasure_of_one_chunk_are_in_conflict_in_that_order,
            a_restriction_and_an_erasure_that_come_at_once_are_in_an_order,
            a_lifting_ends_a_restriction,
            a_lifting_that_is_cancelled_ends_nothing,
            a_lifting_ends_a_restriction_though_another_was_cancelled,
            a_restriction_that_was_lifted_stays_lifted_though_what_came_after_is_taken_back,
            a_referred_restriction_is_not_ended_by_a_lifting_that_it_stands_behind,
            a_restriction_that_another_has_lifted_does_not_outlive_a_lifting_that_is_declined,
            others_are_restricted_until_their_lifting_is_under_way,
            a_restriction_that_is_cancelled_stands_no_more,
            a_lifting_ends_only_what_was_restricted_before_it,
            a_restriction_ends_also_where_its_lifting_completes_with_the_sweep,
            a_referred_restriction_stands_once_it_is_authorised,
        }
        sealing {
            no_column_holds_personal_data_in_the_clear,
            another_key_ring_is_refused,
            without_its_key_nothing_opens_and_nothing_is_lost,
            a_store_in_use_is_not_given_new_keys,
            a_sealed_value_opens_in_its_own_row_only,
            what_does_not_open_keeps_nothing_else_from_being_planned,
        }
    }
    sqlite {
        engines {
            a_second_handle_on_the_same_file_is_refused,
        }
        forgetting {
            a_database_from_before_a_rotation_is_of_use_again,
        }
        sealing {
            no_byte_of_the_files_holds_personal_data_in_the_clear,
        }
    }
    postgres {
        engines {
            a_claim_reads_nothing_that_is_finished,
            customers_tables_keep_the_rules_of_citus,
            replicas_that_start_at_once_migrate_once,
        }
        forgetting {
            a_replica_seals_nothing_under_an_old_key_and_keeps_none,
            a_replica_with_a_folder_of_its_own_seals_nothing,
        }
        leases {
            a_hint_survives_a_claim_that_did_not_see_its_work,
            a_match_set_is_not_stored_past_a_claim_that_is_under_way,
            a_match_set_that_is_stored_while_a_claim_runs_is_handed_on,
        }
        lifecycle {
            a_cancellation_that_waits_for_a_task_does_not_hold_the_request,
        }
        listing {
            a_change_that_commits_late_is_seen_once_it_has,
            a_watch_goes_on_after_the_store_was_moved,
        }
        kept {
            a_restriction_that_comes_beside_a_sweep_holds_what_was_held,
        }
        renaming {
            a_restriction_that_is_being_ended_does_not_stand_under_the_new_name,
        }
        order {
            a_task_that_is_added_while_one_in_the_middle_goes_waits_for_those_before,
            what_waits_for_two_is_set_free_whatever_the_database_is_set_to,
        }
        replays {
            what_is_kept_costs_no_round_trip,
            a_restriction_is_not_redone_behind_what_is_done_while_it_comes_in,
            a_cancellation_waits_for_follow_ups_that_are_on_their_way_in,
        }
        restrictions {
            an_erasure_sees_a_restriction_that_was_done_while_it_came_in,
            a_lifting_that_comes_while_another_is_cancelled_ends_what_that_one_would_have,
        }
        isolation {
            a_connection_without_settings_sees_no_row,
            the_distributing_migration_names_every_table,
            a_setting_ends_with_its_transaction,
        }
        subjects {
            a_line_is_moved_or_covered_anew_by_one_at_a_time,
        }
        round_trips {
            one_request_takes_few,
            a_thousand_requests_take_no_more,
            a_repeated_request_takes_fewer,
        }
    }
}
