//! TensorBoard event files, written natively: TFRecord framing around a hand-encoded `tensorflow.Event`.
//!
//! Only scalars are needed, i.e. five fields of two small messages, which is less than a protobuf library would
//! cost. [`crate::metrics::MetricLog`] is the only caller.

use std::{
    fs::{File, OpenOptions, create_dir_all},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::problem::{Problem, Result};

/// Appends scalar events to one fresh event file.
pub(crate) struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Starts a new event file in `folder`. `resume_at` tells TensorBoard to forget what an earlier process of the
    /// same run wrote for later steps.
    pub(crate) fn create(folder: &Path, resume_at: Option<u64>) -> Result<Self> {
        create_dir_all(folder).map_err(|error| Problem::io("create", folder, &error))?;
        let (file, path) = fresh_file(folder)?;
        let mut events = Self { file, path };
        events.append(&event(0, 3, b"brain.Event:2"))?;
        if let Some(step) = resume_at {
            // SessionLog { status: START } with step s makes TensorBoard drop events of steps >= s.
            events.append(&event(step + 1, 7, &[0x08, 1]))?;
        }
        Ok(events)
    }

    /// Appends one value per tag, all of the same step.
    pub(crate) fn scalars(&mut self, step: u64, values: impl Iterator<Item = (String, f64)>) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            field(&mut entry, 1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((value as f32).to_le_bytes());
            field(&mut summary, 1, &entry);
        }
        self.append(&event(step, 5, &summary))
    }

    fn append(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_crc32c(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc32c(data).to_le_bytes());
        self.file.write_all(&record).map_err(|error| Problem::io("append to", &self.path, &error))
    }
}

/// TensorBoard reads the event files of a folder in the order of their names, which start with the second of their
/// creation; two runs of one second are told apart by a counter.
fn fresh_file(folder: &Path) -> Result<(File, PathBuf)> {
    let seconds = now().as_secs();
    let mut attempt = 0;
    loop {
        let path = folder.join(format!("events.out.tfevents.{seconds:010}.polo.{attempt:03}"));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => attempt += 1,
            Err(error) => return Err(Problem::io("create", &path, &error)),
        }
    }
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `Event { wall_time = 1, step = 2, <number> = payload }`.
fn event(step: u64, number: u8, payload: &[u8]) -> Vec<u8> {
    let mut data = vec![1 << 3 | 1];
    data.extend(now().as_secs_f64().to_le_bytes());
    data.push(2 << 3);
    varint(&mut data, step);
    field(&mut data, number, payload);
    data
}

/// A length-delimited field.
fn field(out: &mut Vec<u8>, number: u8, payload: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, payload.len() as u64);
    out.extend(payload);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's CRC, bit by bit: an event is a few hundred bytes a step.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One decoded event: step, number of the payload's field, and scalars.
    #[derive(Debug, PartialEq)]
    pub(crate) struct Decoded {
        pub step: u64,
        pub kind: u64,
        pub scalars: Vec<(String, f32)>,
    }

    /// The fields of a message as (number, wire type's payload); fixed-width ones as their little-endian bytes.
    fn fields(mut data: &[u8]) -> Vec<(u64, u64, &[u8])> {
        fn take_varint(data: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = data[0];
                *data = &data[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !data.is_empty() {
            let key = take_varint(&mut data);
            let (value, width) = match key & 7 {
                0 => (take_varint(&mut data), 0),
                1 => (0, 8),
                2 => (0, take_varint(&mut data) as usize),
                5 => (0, 4),
                other => panic!("wire type {other}"),
            };
            found.push((key >> 3, value, &data[..width]));
            data = &data[width..];
        }
        found
    }

    /// Decodes a whole event file, checking both checksums of every record.
    pub(crate) fn decode(mut bytes: &[u8]) -> Vec<Decoded> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let crc = |range: std::ops::Range<usize>| u32::from_le_bytes(bytes[range].try_into().unwrap());
            assert_eq!(crc(8..12), masked_crc32c(&bytes[..8]));
            let data = &bytes[12..12 + length];
            assert_eq!(crc(12 + length..16 + length), masked_crc32c(data));
            bytes = &bytes[16 + length..];

            let mut event = Decoded { step: 0, kind: 0, scalars: Vec::new() };
            for (number, value, payload) in fields(data) {
                match number {
                    1 => assert!(f64::from_le_bytes(payload.try_into().unwrap()) > 1.6e9),
                    2 => event.step = value,
                    _ => event.kind = number,
                }
                if number == 5 {
                    for (_, _, entry) in fields(payload) {
                        let parts = fields(entry);
                        let tag = String::from_utf8(parts[0].2.to_vec()).unwrap();
                        event.scalars.push((tag, f32::from_le_bytes(parts[1].2.try_into().unwrap())));
                    }
                }
            }
            events.push(event);
        }
        events
    }

    #[test]
    fn checksums_equal_the_published_ones() {
        // RFC 3720, B.4, and the usual check string.
        for (data, expected) in [
            (&[0_u8; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(crc32c(data), expected);
        }
    }

    #[test]
    fn what_was_written_decodes() {
        let folder = tempfile::tempdir().unwrap();
        let values = [0.25, f64::NAN];
        let mut events = EventFile::create(folder.path(), Some(300)).unwrap();
        let tags = ["train/loss".to_string(), "x".repeat(200)];
        events.scalars(301, tags.iter().cloned().zip(values)).unwrap();
        let decoded = decode(&std::fs::read(&events.path).unwrap());
        assert_eq!(decoded.len(), 3);
        assert_eq!(decoded[0], Decoded { step: 0, kind: 3, scalars: vec![] });
        assert_eq!(decoded[1], Decoded { step: 301, kind: 7, scalars: vec![] });
        assert_eq!((decoded[2].step, decoded[2].kind), (301, 5));
        assert_eq!(decoded[2].scalars[0], ("train/loss".to_string(), 0.25));
        assert_eq!(decoded[2].scalars[1].0, tags[1]);
        assert!(decoded[2].scalars[1].1.is_nan());

        // A second process within the same second gets a file of its own.
        let second = EventFile::create(folder.path(), None).unwrap();
        assert_ne!(second.path, events.path);
    }
}
