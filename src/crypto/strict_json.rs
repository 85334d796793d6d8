//! JSON as tokens and keys need it. Invariants: an object in which a member name occurs twice, at any depth, is
//! refused (RFC 7519 §4, RFC 7515 §4): two readers that pick different ones would disagree on what was signed; what
//! is read nests at most [`MAX_DEPTH`] deep.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Objects and arrays within each other, the outermost being the first. A chain of actors, the deepest thing that
/// tokens carry, has a handful.
const MAX_DEPTH: u32 = 32;

/// A JSON value all of whose objects have unique members.
pub(super) struct Unique(pub(super) Value);

/// Reads one JSON object with unique members and nothing after it.
pub(super) fn object(json: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    match serde_json::from_slice(json)? {
        Unique(Value::Object(members)) => Ok(members),
        Unique(_) => Err(Error::custom("not an object")),
    }
}

/// Text of unknown origin for a message: escaped, at most 64 characters.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Within(MAX_DEPTH).deserialize(deserializer).map(Self)
    }
}

/// Reads a value in which so many levels of objects and arrays may begin.
#[derive(Clone, Copy)]
struct Within(u32);

impl Within {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let left = self.0.checked_sub(1);
        left.map(Self).ok_or_else(|| E::custom(format_args!("nested more than {MAX_DEPTH} levels deep")))
    }
}

impl<'de> DeserializeSeed<'de> for Within {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let within = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(within)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let within = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate member {}", quoted(&name))));
            }
            object.insert(name, members.next_value_seed(within)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        let json = r#"{"a":[1,-2,1.5,null,true,"x"],"b":{"a":{}}}"#;
        assert_eq!(
            Value::Object(object(json.as_bytes()).unwrap()),
            serde_json::from_str::<Value>(json).unwrap()
        );
    }

    #[test]
    fn refuses_duplicates_at_any_depth_and_escaped() {
        for json in [r#"{"a":1,"a":1}"#, r#"{"o":{"a":1,"a":2}}"#, r#"{"o":[{"a":1,"\u0061":2}]}"#] {
            let error = object(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(r#"duplicate member "a""#), "{json}: {error}");
        }
    }

    #[test]
    fn refuses_what_nests_too_deep() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let nested = |levels| format!(r#"{{"a":{}1{}}}"#, open.repeat(levels), close.repeat(levels));
            assert!(object(nested(31).as_bytes()).is_ok());
            let error = object(nested(32).as_bytes()).unwrap_err().to_string();
            assert!(error.contains("nested more than 32 levels deep"), "{error}");
        }
    }

    #[test]
    fn refuses_what_is_not_one_object() {
        for json in ["[]", "1", "", "{} {}", "{", r#""{}""#] {
            assert!(object(json.as_bytes()).is_err(), "{json}");
        }
        assert!(object("[".repeat(100_000).as_bytes()).is_err());
    }
}
