//! Opens compressed request bodies, bounded in what they may grow to.

use std::io::Read;

use bytes::Bytes;

/// Why a body could not be opened.
#[derive(Debug, PartialEq, Eq)]
pub enum InflateError {
    Unknown(String),
    Broken(String),
    TooLarge,
}

/// Decodes `body` by the codings of its Content-Encoding header, the last applied first; `identity` is nothing.
///
/// # Errors
///
/// An unknown coding, a broken body, or more than `limit` bytes after decoding.
pub fn inflate(body: &Bytes, codings: &str, limit: u64) -> Result<Bytes, InflateError> {
    let mut out = body.clone();
    let codings: Vec<&str> = codings.split(',').map(str::trim).filter(|c| !c.is_empty() && !c.eq_ignore_ascii_case("identity")).collect();
    if codings.len() > 2 {
        return Err(InflateError::Unknown("more than two codings".to_owned()));
    }
    for coding in codings.iter().rev() {
        let input = out.as_ref();
        let opened = match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => bounded(flate2::read::MultiGzDecoder::new(input), limit),
            // "deflate" is zlib by RFC 9110 section 8.4.1.2, and raw in the habits of some clients.
            "deflate" if input.first().is_some_and(|b| b & 0x0F == 8) => bounded(flate2::read::ZlibDecoder::new(input), limit),
            "deflate" => bounded(flate2::read::DeflateDecoder::new(input), limit),
            "br" => bounded(brotli_decompressor::Decompressor::new(input, 4_096), limit),
            "zstd" => match ruzstd::decoding::StreamingDecoder::new(input) {
                Ok(decoder) => bounded(decoder, limit),
                Err(e) => Err(InflateError::Broken(e.to_string())),
            },
            other => Err(InflateError::Unknown(other.chars().take(40).collect())),
        };
        out = opened?;
    }
    Ok(out)
}

fn bounded(reader: impl Read, limit: u64) -> Result<Bytes, InflateError> {
    let mut out = Vec::new();
    match reader.take(limit.saturating_add(1)).read_to_end(&mut out) {
        Ok(_) if out.len() as u64 > limit => Err(InflateError::TooLarge),
        Ok(_) => Ok(out.into()),
        Err(e) => Err(InflateError::Broken(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Bytes {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(data).expect("to memory");
        out.finish().expect("to memory").into()
    }

    #[test]
    fn pain_14_compressed_bodies_are_opened_within_the_limit() {
        assert_eq!(inflate(&gzip(b"{}"), "gzip", 10), Ok(Bytes::from_static(b"{}")));
        assert_eq!(inflate(&gzip(&[b' '; 100_000]), "gzip", 1_000), Err(InflateError::TooLarge));
        assert!(matches!(inflate(&Bytes::from_static(b"{}"), "gzip", 10), Err(InflateError::Broken(_))));
        assert!(matches!(inflate(&Bytes::from_static(b"{}"), "evil", 10), Err(InflateError::Unknown(_))));
        assert_eq!(inflate(&Bytes::from_static(b"{}"), "identity", 10), Ok(Bytes::from_static(b"{}")));
    }
}
