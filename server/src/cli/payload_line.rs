//! The payload of a row as one readable line.

use serde_json::Value;

/// What is shown of a payload: a name and a description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PayloadLine {
    /// The field `name`, else `title`; empty if there is neither.
    pub(crate) name: String,
    /// The field `description`, else `text`; else the whole object where there is no name either.
    pub(crate) description: String,
}

impl PayloadLine {
    /// Reads the JSON object of a row; what is none is shown as it is.
    pub(crate) fn of(json: &str) -> PayloadLine {
        let object: Value = serde_json::from_str(json).unwrap_or_default();
        let first = |fields: [&str; 2]| {
            let mut texts = fields.iter().filter_map(|field| object.get(field)?.as_str());
            texts.next().unwrap_or_default().to_string()
        };
        let name = first(["name", "title"]);
        let description = first(["description", "text"]);
        if name.is_empty() && description.is_empty() {
            return PayloadLine { name, description: json.trim().to_string() };
        }
        PayloadLine { name, description }
    }
}

#[cfg(test)]
mod tests {
    use super::PayloadLine;

    fn check(json: &str, name: &str, description: &str) {
        let wanted = PayloadLine { name: name.into(), description: description.into() };
        assert_eq!(PayloadLine::of(json), wanted);
    }

    #[test]
    fn known_fields_are_picked_and_the_rest_is_shown_whole() {
        check(r#"{"name": "vim", "size": 3, "description": "an editor"}"#, "vim", "an editor");
        check(r#"{"title": "Faust", "text": "Habe nun"}"#, "Faust", "Habe nun");
        check(r#"{"name": "vim"}"#, "vim", "");
        check(r#"{"name": 7}"#, "", r#"{"name": 7}"#);
        check(" not json\n", "", "not json");
    }
}
