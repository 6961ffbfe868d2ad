//! Tokenisation without a vocabulary: a token is up to four bytes of text and its id is those bytes.
//!
//! Deterministic, reversible (but for NUL bytes at the end of a piece) and stable under appending: each segment of a
//! conversation is cut by itself, so a longer conversation begins with exactly the tokens of the shorter one.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The id of a token: its bytes, little end first, padded with zeros.
pub type Token = u32;

/// Bytes in a full token.
pub const TOKEN_BYTES: usize = 4;

/// Tokens that `bytes` of text in one segment become.
#[must_use]
pub fn count(bytes: usize) -> usize {
    bytes.div_ceil(TOKEN_BYTES)
}

/// Cuts one segment.
pub fn encode(text: &[u8], out: &mut Vec<Token>) {
    out.reserve(count(text.len()));
    let (whole, rest) = text.as_chunks::<TOKEN_BYTES>();
    out.extend(whole.iter().map(|it| Token::from_le_bytes(*it)));
    if !rest.is_empty() {
        let mut last = [0; TOKEN_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        out.push(Token::from_le_bytes(last));
    }
}

/// The text of tokens.
#[must_use]
pub fn decode(tokens: &[Token]) -> String {
    let mut bytes = Vec::with_capacity(tokens.len() * TOKEN_BYTES);
    for token in tokens {
        bytes.extend(token.to_le_bytes().into_iter().filter(|byte| *byte != 0));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The chain of block hashes: each covers its block and everything before it, so equal hashes mean equal prefixes.
/// Only full blocks have one.
#[must_use]
pub fn chain(tokens: &[Token], block_tokens: usize) -> Vec<u64> {
    let mut parent = 0;
    let mut bytes = Vec::with_capacity(block_tokens * TOKEN_BYTES);
    let hash = |block: &[Token]| {
        bytes.clear();
        bytes.extend(block.iter().flat_map(|token| token.to_le_bytes()));
        parent = xxh3_64_with_seed(&bytes, parent);
        parent
    };
    tokens.chunks_exact(block_tokens.max(1)).map(hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_being_cut_and_put_together() {
        for text in ["", "a", "abcd", "abcde", "Grüße, 世界! 🚀"] {
            let mut tokens = Vec::new();
            encode(text.as_bytes(), &mut tokens);
            assert_eq!((decode(&tokens).as_str(), tokens.len()), (text, count(text.len())));
        }
    }

    #[test]
    fn a_chain_names_the_whole_prefix_and_full_blocks_only() {
        let tokens: Vec<Token> = (0..40).collect();
        let whole = chain(&tokens, 16);
        assert_eq!(whole.len(), 2);
        assert_eq!(chain(&tokens[..32], 16), whole);
        let mut other = tokens;
        other[0] = 99;
        assert_ne!(chain(&other, 16)[1], whole[1]);
    }
}
