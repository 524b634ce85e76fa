//! Conversions between Rust values and the text of columns.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::registry::error::RegistryError;

/// Encodes a value as JSON text.
pub(super) fn to_json(value: &impl Serialize) -> String {
    // Serialization fails only for maps with keys that are not strings, which no row has.
    serde_json::to_string(value).expect("rows hold plain data")
}

/// Decodes a value from JSON text.
pub(super) fn from_json<T: DeserializeOwned>(
    column: &'static str,
    text: &str,
) -> Result<T, RegistryError> {
    serde_json::from_str(text)
        .map_err(|error| RegistryError::Unreadable { column, text: error.to_string() })
}

/// Decodes an enum from its word, such as a status.
pub(super) fn from_word<T: DeserializeOwned>(
    column: &'static str,
    word: String,
) -> Result<T, RegistryError> {
    // Through serde, so that the words of columns and of JSON are defined in one place.
    serde_json::from_value(Value::from(word))
        .map_err(|error| RegistryError::Unreadable { column, text: error.to_string() })
}
