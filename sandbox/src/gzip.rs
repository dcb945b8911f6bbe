//! Gzip without compression: a valid frame around the bytes as they are.
//!
//! Enough to tell a client that decodes what it never asked for from one that does not.

/// The longest piece that one stored block holds.
const BLOCK: usize = u16::MAX as usize;

/// Wraps bytes so that any reader of gzip gets them back.
pub(crate) fn wrap(bytes: &[u8]) -> Vec<u8> {
    let mut framed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks = bytes.chunks(BLOCK).count().max(1);
    for n in 0..blocks {
        let block = bytes.chunks(BLOCK).nth(n).unwrap_or_default();
        let length = block.len() as u16;
        framed.push(u8::from(n + 1 == blocks));
        framed.extend(length.to_le_bytes());
        framed.extend((!length).to_le_bytes());
        framed.extend(block);
    }
    framed.extend(crc32(bytes).to_le_bytes());
    framed.extend((bytes.len() as u32).to_le_bytes());
    framed
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0_u32, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_gzip() {
        // The check value in the catalogue of cyclic redundancy codes.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_frame_is_what_the_format_says() {
        assert_eq!(
            wrap(b"a"),
            [
                0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1, 1, 0, 0xfe, 0xff, b'a', 0x43, 0xbe, 0xb7, 0xe8, 1,
                0, 0, 0
            ]
        );
    }
}
