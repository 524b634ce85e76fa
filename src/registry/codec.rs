//! Words and JSON to and from columns.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::registry::error::RegistryError;

/// A value as JSON text.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what is stored is plain data")
}

/// A value from JSON text.
pub(super) fn from_json<T: DeserializeOwned>(
    column: &'static str,
    text: &str,
) -> Result<T, RegistryError> {
    serde_json::from_str(text)
        .map_err(|error| RegistryError::Unreadable { column, text: error.to_string() })
}

/// A value from one word, such as a status.
pub(super) fn from_word<T: DeserializeOwned>(
    column: &'static str,
    word: String,
) -> Result<T, RegistryError> {
    serde_json::from_value(Value::from(word))
        .map_err(|error| RegistryError::Unreadable { column, text: error.to_string() })
}
