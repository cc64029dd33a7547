//! Tasks, messages and actors within function bodies, several of them with one name.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error;

use roadshow::TaskFn;
use roadshow::prelude::*;

/// Item of the module with the name of the local ones.
#[roadshow::task]
const fn work() -> u8 {
    0
}

type Answers = Result<Vec<(&'static str, u8)>, Box<dyn Error>>;

async fn first(cluster: &Cluster) -> Answers {
    #[roadshow::task]
    const fn work() -> u8 {
        1
    }
    Ok(vec![(work::NAME, cluster.run(work::task()).await?)])
}

struct Second;

impl Second {
    async fn ask(cluster: &Cluster) -> Answers {
        #[roadshow::task(parallel = 2)]
        const fn work() -> u8 {
            2
        }
        let in_block = {
            #[roadshow::task]
            const fn work() -> u8 {
                3
            }
            (work::NAME, cluster.run(work::task()).await?)
        };
        let in_closure = || {
            #[roadshow::task]
            const fn work() -> u8 {
                4
            }
            (work::NAME, work::task())
        };
        let (name, task) = in_closure();
        Ok(vec![(work::NAME, cluster.run(work::task()).await?), in_block, (name, cluster.run(task).await?)])
    }
}

/// Functions whose tasks have one name and one position in the source, since a macro creates them.
macro_rules! functions {
    ($($function:ident $value:literal)*) => {
        $(
            async fn $function(cluster: &Cluster) -> Answers {
                #[roadshow::task]
                const fn work() -> u8 {
                    $value
                }
                Ok(vec![(work::NAME, cluster.run(work::task()).await?)])
            }
        )*
    };
}

functions!(fifth 5 sixth 6);
// A second call of the macro, with another position than the first.
functions!(seventh 7);

const _: () = {
    #[roadshow::task]
    const fn work() -> u8 {
        8
    }
    // The task is registered, although its type cannot be named here.
    assert!(work() == 8);
};

/// Actor and message with the names of others.
macro_rules! counter {
    ($cluster:expr, $step:literal) => {{
        #[derive(Message, RemoteMessage, Serialize, Deserialize)]
        #[rtype(result = "u8")]
        struct Add(u8);

        #[derive(RemoteActor)]
        #[remote(handles(Add))]
        struct Counter(u8);

        impl Actor for Counter {
            type Context = Context<Self>;
        }

        impl Spawn for Counter {
            type Args = ();
            type Error = Infallible;

            fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
                Ok(Self(0))
            }
        }

        impl Handler<Add> for Counter {
            type Result = u8;

            fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u8 {
                self.0 += n * $step;
                self.0
            }
        }

        $cluster.spawn::<Counter>(()).await?.send(Add(2)).await?
    }};
}

/// Items of a different kind than the local items of their name.
mod other_kinds {
    #![expect(dead_code, reason = "the names alone are of interest")]

    use roadshow::TaskFn;
    use roadshow::prelude::*;

    mod generic {}
    struct Shape<T>(T);
    trait Draw {}
    enum Kind {
        Add,
    }
    #[expect(unused_imports, reason = "what is imported has the name of a local item")]
    use Kind::*;

    pub(super) fn names() -> [&'static str; 4] {
        #[roadshow::task]
        const fn generic() {}

        #[derive(Message, RemoteMessage, Serialize, Deserialize)]
        #[rtype(result = "()")]
        struct Shape;

        #[derive(Message, RemoteMessage, Serialize, Deserialize)]
        #[rtype(result = "()")]
        struct Draw;

        #[derive(Message, RemoteMessage, Serialize, Deserialize)]
        #[rtype(result = "()")]
        struct Add;

        [generic::NAME, Shape::NAME, Draw::NAME, Add::NAME]
    }
}

#[actix_rt::test]
async fn tasks_of_one_name_in_several_functions_each_run() -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::in_process(1).await?;
    let mut answers = vec![(work::NAME, cluster.run(work::task()).await?)];
    answers.extend(first(&cluster).await?);
    answers.extend(Second::ask(&cluster).await?);
    answers.extend(fifth(&cluster).await?);
    answers.extend(sixth(&cluster).await?);
    answers.extend(seventh(&cluster).await?);
    assert_eq!(answers.iter().map(|(_, answer)| *answer).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
    let names: BTreeSet<_> = answers.iter().map(|(name, _)| *name).collect();
    // Equal names would make the registry fail, or run the wrong task.
    assert_eq!(names.len(), answers.len(), "{names:?}");
    cluster.shutdown().await?;
    Ok(())
}

#[actix_rt::test]
async fn actors_and_messages_of_one_name_in_several_functions_each_answer() -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::in_process(1).await?;
    assert_eq!(counter!(cluster, 1), 2);
    // The step shows which of the two actors answered.
    assert_eq!(counter!(cluster, 10), 20);
    cluster.shutdown().await?;
    Ok(())
}

#[test]
fn the_name_of_a_local_item_contains_its_position_and_that_of_a_module_item_does_not() {
    assert_eq!(work::NAME, "ui::locals::work");
    for name in other_kinds::names() {
        let [item, place, _] = *name.rsplitn(3, "::").collect::<Vec<_>>() else { panic!("{name}") };
        assert!(place.starts_with('{') && place.ends_with('}'), "{item}: {name}");
    }
}
