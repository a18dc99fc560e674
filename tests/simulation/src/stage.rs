//! Runs actors, one at a time and each until it parks.

use std::{collections::BTreeMap, future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use crate::world::{ActorId, ReplicaId, World};

/// In real time: who neither parks nor ends for so long never will.
const HANGS: Duration = Duration::from_secs(600);

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

struct Actor<T> {
    replica: Option<ReplicaId>,
    name: Arc<str>,
    work: Work<T>,
}

/// The actors of a run. `T`: what they end with.
pub struct Stage<T> {
    world: Arc<World>,
    actors: BTreeMap<ActorId, Actor<T>>,
    entered: u64,
}

impl<T> Stage<T> {
    pub fn new(world: Arc<World>) -> Self {
        Self { world, actors: BTreeMap::new(), entered: 0 }
    }

    /// An actor of a process, or of none. It has not begun.
    pub fn enter(&mut self, replica: Option<ReplicaId>, name: &str, work: Work<T>) -> ActorId {
        self.entered += 1;
        self.actors.insert(self.entered, Actor { replica, name: name.into(), work });
        self.entered
    }

    pub fn name(&self, actor: ActorId) -> Arc<str> {
        self.actors.get(&actor).map_or_else(|| "nobody".into(), |a| a.name.clone())
    }

    pub fn replica(&self, actor: ActorId) -> Option<ReplicaId> {
        self.actors.get(&actor).and_then(|a| a.replica)
    }

    /// Polls an actor that parks before anything else.
    pub fn settle(&mut self, id: ActorId) {
        if let Some(actor) = self.actors.get_mut(&id) {
            let replica = actor.replica;
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = self.world.as_actor(id, replica, || actor.work.as_mut().poll(&mut cx));
        }
    }

    /// Lets one run until it parks, its process crashes, or it ends.
    pub async fn run(&mut self, id: ActorId) -> Option<T> {
        let actor = self.actors.get_mut(&id)?;
        let (world, replica, name) = (&self.world, actor.replica, actor.name.clone());
        let before = world.parkings();
        let run = poll_fn(|cx| match world.as_actor(id, replica, || actor.work.as_mut().poll(cx)) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if world.parkings() > before => Poll::Ready(None),
            Poll::Pending if replica.is_some_and(|replica| world.is_crashing(replica)) => Poll::Ready(None),
            // It waits for the database's thread, which wakes us.
            Poll::Pending => Poll::Pending,
        });
        let Ok(done) = tokio::time::timeout(HANGS, run).await else {
            world.violate("simulation", format!("{name} waits for something that is not simulated"));
            return None;
        };
        if done.is_some() {
            self.actors.remove(&id);
        }
        done
    }

    /// A process ends: what it had begun is dropped where it stands. Gives who that was.
    pub fn drop_all_of(&mut self, replica: ReplicaId) -> Vec<ActorId> {
        let gone: Vec<ActorId> =
            self.actors.iter().filter(|(_, actor)| actor.replica == Some(replica)).map(|(id, _)| *id).collect();
        for id in &gone {
            self.actors.remove(id);
        }
        gone
    }
}
