//! Lists of byte strings, for `#[serde(with = ...)]`: each as one run, where serde alone would go through it byte by byte. What is written is the same.

use serde::Deserialize as _;
use serde::Deserializer;
use serde::Serializer;
use serde_bytes::ByteBuf;
use serde_bytes::Bytes;

/// Writes them.
pub fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|it| Bytes::new(it)))
}

/// Reads them.
pub fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
    Ok(Vec::<ByteBuf>::deserialize(deserializer)?.into_iter().map(ByteBuf::into_vec).collect())
}

#[cfg(test)]
mod tests {
    use crate::storage::codec;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct AsRuns(#[serde(with = "super")] Vec<Vec<u8>>, #[serde(with = "serde_bytes")] Vec<u8>);

    #[test]
    fn what_is_written_is_what_serde_alone_writes() {
        let (list, bytes) = (vec![vec![1, 2, 255], Vec::new(), vec![7; 300]], vec![9; 70_000]);
        let written = codec::encode(&AsRuns(list.clone(), bytes.clone())).unwrap();
        assert_eq!(written, codec::encode(&(list.clone(), bytes.clone())).unwrap());
        let AsRuns(read, rest) = codec::decode(&written).unwrap();
        assert_eq!((read, rest), (list, bytes));
    }
}
