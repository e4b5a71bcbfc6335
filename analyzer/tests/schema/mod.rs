//! Holds a value against a JSON schema, as far as `schemars` uses it, and unlike it allows no field that
//! the schema does not have.

use serde_json::Value;

/// Adds what does not fit to `wrong`. `at`: where in the document.
pub fn hold_against(
    value: &Value,
    schema: &Value,
    root: &Value,
    at: &str,
    wrong: &mut Vec<String>,
) {
    if let Some(reference) = schema["$ref"].as_str() {
        let named = root.pointer(reference.trim_start_matches('#')).unwrap();
        return hold_against(value, named, root, at, wrong);
    }
    if let Some(choices) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let fits = |choice: &Value| {
            let mut misses = Vec::new();
            hold_against(value, choice, root, at, &mut misses);
            misses.is_empty()
        };
        // What is null or something else may say why the other does not fit.
        match choices.as_slice() {
            _ if choices.iter().any(fits) => {}
            [only, null] if null["type"] == "null" => hold_against(value, only, root, at, wrong),
            _ => wrong.push(format!("{at}: {value} is none of {schema}")),
        }
        return;
    }
    let is_named = schema["enum"].as_array().is_none_or(|all| all.contains(value))
        && schema.get("const").is_none_or(|only| only == value);
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_kind = |known: &Value| known == kind || (kind == "integer" && known == "number");
    let of_kind = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is_kind),
        known => is_kind(known),
    };
    if !is_named || !of_kind {
        wrong.push(format!("{at}: {value} does not fit {schema}"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            wrong.push(format!("{at}: no {name}"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name).or(schema.get("additionalProperties")) {
            Some(known) => hold_against(field, known, root, &format!("{at}.{name}"), wrong),
            None => wrong.push(format!("{at}: the schema has no {name}")),
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        let known = schema["prefixItems"].get(index).unwrap_or(&schema["items"]);
        hold_against(item, known, root, &format!("{at}[{index}]"), wrong);
    }
}
