//! Contents of a declaration's schema, for all types that a declaration may name.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;

use roadshow::TaskFn;
use roadshow::internals::registry::Registry;
use roadshow::prelude::*;
use serde_json::{Value, json};

/// Recursive type, with and without its own name.
#[expect(clippy::use_self, reason = "a type may also be written by its name")]
#[derive(Clone, Debug, Default, Serialize, Deserialize, RemoteData)]
pub struct Tree {
    /// Required child.
    pub first: Option<Box<Self>>,
    /// Other children.
    pub others: Vec<Tree>,
    /// Content of the tree.
    pub r#type: fruits::r#Enum,
}

/// Types in other modules.
pub mod fruits {
    use roadshow::prelude::*;

    /// Type with a field whose type needs no path only in this module.
    #[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, RemoteData)]
    pub enum r#Enum {
        /// Empty type.
        #[default]
        Nothing,
        /// Leaf type.
        r#Fruit(super::Weight, Colour),
    }

    /// Type that this module finds without a path.
    #[derive(Clone, Copy, Debug, Serialize, Deserialize, RemoteData)]
    pub struct Colour(u8);
}

/// Weight in grams.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RemoteData)]
#[remote(name = "orchard::Weight")]
#[serde(transparent)]
pub struct Weight(u32);

/// Type without a schema that contains one with a schema.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wrapper<T = Weight, const N: usize = 1>(Vec<T>);

const ROWS: usize = 2;

/// Types with the names that the generated code uses.
#[derive(Debug, Serialize, Deserialize, RemoteData)]
pub struct Probe(u8);

/// Deprecated type, so that each use of it is a warning.
#[deprecated]
#[derive(Clone, Copy, Debug)]
pub struct Old;

/// Type with a deprecated field, which is allowed once.
#[expect(deprecated, missing_debug_implementations, reason = "another derive would complain, too")]
#[derive(RemoteData)]
pub struct Outdated(pub Old);

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<Option<fruits::Colour>, (Weight, Cow<'static, str>)>")]
struct Plant(Box<Tree>, Cow<'static, str>);

/// Type with fields of all kinds.
#[expect(missing_debug_implementations, clippy::type_complexity, reason = "a message may be so")]
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub struct Everything {
    tuple: ((), u8, (Weight, [Option<Weight>; ROWS])),
    map: HashMap<String, BTreeMap<u8, Probe>>,
    constants: Wrapper<u8, ROWS>,
    defaults: Wrapper,
    pointers: PhantomData<(fn(&Probe) -> Cow<'_, str>, fn())>,
    /// Skipped field.
    #[serde(skip)]
    pub function: Option<Box<dyn for<'a> Fn(&'a str) -> Cow<'a, str> + Send>>,
    associated: <Vec<fruits::Colour> as IntoIterator>::Item,
    next: Option<Box<Self>>,
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Bare;

#[derive(Message, Serialize, Deserialize)]
#[rtype(result = "Weight")]
struct ByHand(Weight);

impl RemoteMessage for ByHand {
    const NAME: &'static str = "orchard::ByHand";
}

#[derive(RemoteActor)]
#[remote(local, handles(Plant, Everything, Bare, ByHand))]
struct Orchard;

impl Actor for Orchard {
    type Context = Context<Self>;
}

macro_rules! handles {
    ($($message:ty => $result:expr,)*) => {$(
        impl Handler<$message> for Orchard {
            type Result = MessageResult<$message>;

            fn handle(&mut self, _: $message, _: &mut Context<Self>) -> Self::Result {
                MessageResult($result)
            }
        }
    )*};
}

handles! {
    Plant => Ok(None),
    Everything => (),
    Bare => (),
    ByHand => Weight(1),
}

#[roadshow::task]
fn weigh(trees: Vec<Tree>, _: Cow<'static, str>) -> Result<Weight, Probe> {
    let bare = trees.into_iter().filter(|tree| tree.first.is_none());
    u32::try_from(bare.count()).map(Weight).map_err(|_| Probe(1))
}

/// Returns the schema that this executable declares under a name.
fn declared(name: &str) -> Value {
    let registry = Registry::collect().expect("no names collide here");
    serde_json::to_value(registry.table()).expect("a table is texts")[name].take()
}

#[test]
fn a_declaration_has_the_schemas_of_all_types_that_it_names() {
    let tree = json!({
        "ui::accepted::schemas::Tree":
            ["struct Tree{first:Option<Box<Self>>,others:Vec<Tree>,type:fruits::r#Enum}"],
        "ui::accepted::schemas::fruits::Enum": ["enum Enum{Nothing,Fruit(super::Weight,Colour)}"],
        "ui::accepted::schemas::fruits::Colour": ["struct Colour(u8)"],
        "orchard::Weight": ["#[serde(transparent)]struct Weight(u32)"],
    });
    assert_eq!(
        declared("ui::accepted::schemas::Plant"),
        json!({
            "own": ["struct Plant(Box<Tree>,Cow<'static,str>) \
                     -> Result<Option<fruits::Colour>,(Weight,Cow<'static,str>)>"],
            "parts": tree,
        })
    );
    // The task also names its error type.
    let mut with_probe = tree;
    with_probe["ui::accepted::schemas::Probe"] = json!(["struct Probe(u8)"]);
    let expected = json!({
        "own": ["fn(Vec<Tree>,Cow<'static,str>)->Result<Weight,Probe>"],
        "parts": with_probe,
    });
    assert_eq!(declared("ui::accepted::schemas::weigh"), expected);
    assert_eq!(weigh(vec![], "kg".into()).unwrap().0, 0);
}

#[test]
fn every_type_can_be_named() {
    let declared = declared("ui::accepted::schemas::Everything");
    let parts = declared["parts"].as_object().unwrap();
    assert_eq!(
        parts.keys().collect::<Vec<_>>(),
        ["orchard::Weight", "ui::accepted::schemas::Probe", "ui::accepted::schemas::fruits::Colour"]
    );
}

#[test]
fn a_declaration_without_schema_types_has_only_its_own_schema() {
    assert_eq!(declared("ui::accepted::schemas::Bare"), json!({"own": ["struct Bare -> ()"], "parts": {}}));
    // An implementation by hand declares no schema, so it is never rejected.
    assert_eq!(declared("orchard::ByHand"), json!({"own": [], "parts": {}}));
    assert_eq!(super::inner::nothing::SCHEMA, "fn()->()");
}
