//! A whole cluster under seeded faults: a head, agents, workers and drivers.

mod actors;

use actors::{Counter, Note};
use roadshow::sim::{Journal, Plan, World};

/// Runs a script in virtual time.
pub(crate) fn run(plan: Plan) -> Journal {
    World::run(plan, async |world| {
        actors::set_world(&world);
        let driver = match world.driver(0).await {
            Ok(driver) => driver,
            Err(error) => return world.journal().violation(error),
        };
        let counter = driver.cluster().spawn::<Counter>(7).await;
        world.journal().note(format_args!("{:?}", counter.is_ok()));
        let answer = counter.unwrap().send(Note { op: 1 }).await;
        world.journal().note(format_args!("{answer:?}"));
        driver.end().await;
    })
}
