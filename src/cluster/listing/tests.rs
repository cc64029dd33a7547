//! Tests of filters, pages and matches.

use super::*;

fn filter(text: &str) -> Filter {
    let (key, value) = text.split_once('=').unwrap();
    let (key, is_equal) = key.strip_suffix('!').map_or((key, true), |key| (key, false));
    Filter { key: key.to_owned(), value: value.to_owned(), is_equal }
}

#[track_caller]
fn holds(text: &str, field: &Value<'_>) -> bool {
    Condition::new(&filter(text), Kind::Actors).unwrap().holds(field)
}

#[test]
fn filters_compare_fields_as_displayed() {
    for (text, field) in [
        ("state=alive", Value::Text("ALIVE")),
        ("pid=17", Value::Number(17)),
        ("job_id=a", Value::Id(10)),
        ("job=0000000A", Value::Id(10)),
        ("name=none", Value::Nothing),
        ("node=", Value::Nothing),
        ("cause=it ended", Value::Made("It ended".to_owned())),
    ] {
        assert!(holds(text, &field), "{text}");
        assert!(!holds(&text.replace('=', "!="), &field), "{text}");
    }
    for (text, field) in [
        ("state=DEAD", Value::Text("ALIVE")),
        ("pid=1", Value::Number(17)),
        ("job_id=a0", Value::Id(10)),
        ("name=x", Value::Nothing),
        ("name=none", Value::Text("x")),
    ] {
        assert!(!holds(text, &field), "{text}");
    }
}

#[test]
fn invalid_filter_is_refused_with_the_valid_choices() {
    let refused = |text: &str, kind| Condition::new(&filter(text), kind).unwrap_err().to_string();
    let text = refused("colour=red", Kind::Workers);
    assert!(text.contains("\"colour\"; the keys are worker_id, state, job_id"), "{text}");
    let text = refused("state=ALIV", Kind::Actors);
    assert!(text.ends_with("state is one of PENDING_CREATION, ALIVE, RESTARTING, DEAD"), "{text}");
    for text in ["actor_id=x1", "pid=many", "job=+1"] {
        assert!(refused(text, Kind::Actors).contains(" is a"), "{text}");
    }
    assert!(refused("is_head=yes", Kind::Nodes).ends_with("true or false"));
    let many = Query::filtered(vec![filter("pid=1"); LIST_FILTERS_MAX + 1]);
    assert_eq!(many.check(Kind::Actors), Err(QueryError::TooMany { filters: LIST_FILTERS_MAX + 1 }));
}
