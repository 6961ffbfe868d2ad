//! JSON as bytes: scanning and splicing.

/// Undoes the escapes of a JSON string's inside.
pub fn decode_into(raw: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(raw);
}

/// Appends a JSON value without whitespace outside of strings.
pub fn compact_into(raw: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(raw);
}
