//! Properties of a node as arguments: CPUs, memory, other resources, labels and names.

use std::collections::BTreeMap;

use roadshow::model::{Labels, Quantity, Resources};

/// Maximum amount of a resource: the largest that an `f64` counts in ten-thousandths without loss.
const AMOUNT_MAX: f64 = (1_u64 << 53) as f64 / Quantity::ONE as f64;

/// Maximum length in bytes of the name of a node, resource or label, and of a label's value.
const NAME_BYTES_MAX: usize = 63;

/// Amounts of resources other than CPUs and memory, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Custom(pub(crate) BTreeMap<String, f64>);

/// Labels by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelList(pub(crate) Labels);

/// Parses a number of CPUs; 0 is allowed.
pub(crate) fn cores(text: &str) -> Result<f64, String> {
    let fails = || "it must be a number of processors, such as 4 or 0".to_owned();
    text.parse().ok().and_then(amount).ok_or_else(fails)
}

/// Parses an amount of memory, with or without a unit.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: &[(&str, u64)] = &[
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("b", 1),
    ];
    let text = text.trim().to_ascii_lowercase();
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, unit) = unit.unwrap_or((&text, 1));
    let number = number.trim_end().parse::<f64>().ok().and_then(amount);
    let bytes = number.and_then(|number| amount(number * unit as f64));
    // `amount` has checked that it is not negative and at most 2^53, so the cast is exact.
    let bytes = bytes.map(|bytes| bytes.round() as u64);
    bytes
        .ok_or_else(|| "it must be an amount of memory, such as 8GiB, 512MiB or a number of bytes".to_owned())
}

/// Parses resources given as a JSON object of numbers.
pub(crate) fn custom(text: &str) -> Result<Custom, String> {
    let fails = |why: String| format!("{why}; it must be a JSON object such as '{{\"gpu\": 1}}'");
    let amounts: BTreeMap<String, f64> =
        serde_json::from_str(text).map_err(|error| fails(format!("it is not understood ({error})")))?;
    for (resource, number) in &amounts {
        if matches!(resource.to_ascii_lowercase().as_str(), Resources::CPU | Resources::MEMORY) {
            return Err(format!("{resource:?} has an option of its own: --num-cpus or --memory"));
        }
        name(resource).map_err(&fails)?;
        amount(*number).ok_or_else(|| fails(format!("the amount of {resource:?} must not be below zero")))?;
    }
    Ok(Custom(amounts))
}

/// Parses labels given as `name=value`, separated by commas.
pub(crate) fn labels(text: &str) -> Result<LabelList, String> {
    let mut labels = Labels::new();
    for pair in text.split(',') {
        let (label, value) = pair
            .split_once('=')
            .map(|(label, value)| (label.trim(), value.trim()))
            .ok_or_else(|| format!("{pair:?} must be name=value, such as zone=a,disk=ssd"))?;
        name(label)?;
        name(value)?;
        if labels.insert(label.to_owned(), value.to_owned()).is_some() {
            return Err(format!("{label:?} is given twice"));
        }
    }
    Ok(LabelList(labels))
}

/// Parses a name that fits tables and command lines.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/' | ':');
    match text {
        "" => Err("a name must not be empty".to_owned()),
        _ if text.len() > NAME_BYTES_MAX => {
            Err(format!("{text:?} is longer than {NAME_BYTES_MAX} characters"))
        }
        _ if !text.chars().all(fits) => Err(format!("{text:?} may have letters, digits and - . _ / : alone")),
        _ => Ok(text.to_owned()),
    }
}

/// Returns the number if it is a valid amount of a resource.
fn amount(number: f64) -> Option<f64> {
    (number.is_finite() && (0.0..=AMOUNT_MAX).contains(&number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_cpus_may_be_zero_or_fractional() {
        assert_eq!(["4", "0", "0.5"].map(cores), [Ok(4.0), Ok(0.0), Ok(0.5)]);
        for text in ["-1", "nan", "inf", "many", "1e300", ""] {
            assert!(cores(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_has_units() {
        let shown = ["1024", "8GiB", "1.5 MiB", "2gb", "0"].map(|text| bytes(text).unwrap());
        assert_eq!(shown, [1024, 8 << 30, 3 << 19, 2_000_000_000, 0]);
        for text in ["-1", "8 GiBs", "GiB", "", "1e40", "nan"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn custom_resources_are_an_object_of_amounts() {
        let expected = BTreeMap::from([("gpu".to_owned(), 1.0), ("tpu".to_owned(), 0.5)]);
        assert_eq!(custom(r#"{"gpu": 1, "tpu": 0.5}"#), Ok(Custom(expected)));
        for text in ["gpu=1", r#"{"gpu": "1"}"#, r#"{"gpu": -1}"#, r#"{"": 1}"#, r#"{"cpu": 1}"#, "[]"] {
            assert!(custom(text).is_err(), "{text}");
        }
        assert!(custom(r#"{"CPU": 1}"#).unwrap_err().contains("--num-cpus"));
    }

    #[test]
    fn labels_are_names_and_values() {
        let expected =
            Labels::from([("zone", "a"), ("disk", "ssd")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(labels("zone=a, disk=ssd"), Ok(LabelList(expected)));
        for text in ["", "zone", "zone=", "=a", "zone=a,zone=b", "a=b c", "a=b,"] {
            assert!(labels(text).is_err(), "{text}");
        }
        assert!(name(&"n".repeat(NAME_BYTES_MAX + 1)).is_err());
    }
}
