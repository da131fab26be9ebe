//! Tests of [`super`]: every format, every way in which a file can be bad, and arbitrary bytes.

use std::io::Write;

use arrow::array::{
    ArrayRef, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, StructBuilder,
};
use arrow::datatypes::{Field, Fields};
use flate2::{Compression, write::GzEncoder};
use parquet::{arrow::ArrowWriter, basic, file::properties::WriterProperties};
use proptest::prelude::*;

use super::*;
use crate::rows::{Message, Text};

const GOOD: &str = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<Rows<PairRow>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    read_pairs(&[path], options)
}

/// Checks the message of the error and that it names `name` followed by `place` (`:line:column`).
#[track_caller]
fn check_bad(name: &str, bytes: impl AsRef<[u8]>, place: &str, message: &str) -> Problem {
    let problem = read(name, bytes.as_ref(), &ReadOptions::default()).unwrap_err();
    let found = problem.place_text().unwrap_or_default();
    assert!(found.ends_with(&format!("{name}{place}")), "place {found}, not {name}{place}: {problem}");
    assert!(problem.message().contains(message), "{problem}");
    assert!(problem.hint_text().is_some(), "no hint: {problem}");
    problem
}

#[track_caller]
fn check_good(name: &str, bytes: impl AsRef<[u8]>, expected: &[(&str, &str, &str, f64)]) -> DataReport {
    let found = read(name, bytes.as_ref(), &ReadOptions::default()).unwrap();
    let plain = |text: &Text| match text {
        Text::Plain(text) => text.clone(),
        Text::Conversation(turns) => format!("{turns:?}"),
    };
    let rows: Vec<_> = found
        .rows
        .iter()
        .map(|row| (plain(&row.prompt), plain(&row.chosen), plain(&row.rejected), row.label))
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|&(prompt, chosen, rejected, label)| (prompt.into(), chosen.into(), rejected.into(), label))
        .collect();
    assert_eq!(rows, expected);
    found.report
}

#[test]
fn the_same_rows_come_out_of_every_text_format() {
    let expected = [("a", "b", "c", 1.0), ("d\ne", "f, g", "h", 0.75)];
    let second = r#"{"prompt": "d\ne", "chosen": "f, g", "rejected": "h", "label": 0.75}"#;
    let lines = format!("{GOOD}\r\n\n{second}");
    let list = format!("\n[{GOOD},\n {second}]\n");
    let csv = "prompt,chosen,rejected,label\na,b,c,\n\"d\ne\",\"f, g\",h,0.75\n";
    let reports = [
        check_good("x.jsonl", &lines, &expected),
        check_good("x.txt", format!("\u{feff}{lines}"), &expected),
        check_good("x.jsonl.gz", gzip(lines.as_bytes()), &expected),
        check_good("x.json", &list, &expected),
        check_good("x.json.gz", gzip(list.as_bytes()), &expected),
        check_good("x.csv", csv, &expected),
        check_good("x.csv.gz", gzip(csv.as_bytes()), &expected),
        check_good(
            "x.tsv",
            "prompt\tchosen\trejected\tlabel\na\tb\tc\t\n\"d\ne\"\tf, g\th\t0.75\n",
            &expected,
        ),
    ];
    for report in reports {
        assert_eq!(report.sha256, "d56bd379810cbc54f49795041d748b3a23f5ae463b8fc45b22a43a996a67296a");
        assert_eq!((report.rows, report.skipped, report.duplicates), (2, 0, 0));
    }
}

fn parquet_file(batch: &RecordBatch, compression: basic::Compression) -> Vec<u8> {
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn plain_batch() -> RecordBatch {
    RecordBatch::try_from_iter([
        ("prompt", strings(&["a", "d"])),
        ("unused", Arc::new(Float64Array::from(vec![0.0, 1.0])) as ArrayRef),
        ("chosen", strings(&["b", "e"])),
        ("rejected", strings(&["c", "f"])),
        ("label", Arc::new(Float64Array::from(vec![None, Some(0.5)])) as ArrayRef),
    ])
    .unwrap()
}

#[test]
fn parquet_columns_are_strings_or_turns() {
    let compressions = [
        basic::Compression::UNCOMPRESSED,
        basic::Compression::SNAPPY,
        basic::Compression::ZSTD(basic::ZstdLevel::default()),
        basic::Compression::GZIP(basic::GzipLevel::default()),
    ];
    for compression in compressions {
        let bytes = parquet_file(&plain_batch(), compression);
        check_good("x.parquet", bytes, &[("a", "b", "c", 1.0), ("d", "e", "f", 0.5)]);
    }

    let turn_fields = Fields::from(vec![
        Field::new("content", DataType::Utf8, true),
        Field::new("role", DataType::Utf8, true),
    ]);
    let turns = |list: &[(&str, &str)]| -> ArrayRef {
        let mut builder = ListBuilder::new(StructBuilder::from_fields(turn_fields.clone(), 4));
        for (role, content) in list {
            builder.values().field_builder::<StringBuilder>(0).unwrap().append_value(content);
            builder.values().field_builder::<StringBuilder>(1).unwrap().append_value(role);
            builder.values().append(true);
        }
        builder.append(true);
        Arc::new(builder.finish())
    };
    let batch = RecordBatch::try_from_iter([
        ("chosen", turns(&[("user", "Hi"), ("assistant", "Hello")])),
        ("rejected", turns(&[("user", "Hi"), ("assistant", "Bye")])),
    ])
    .unwrap();
    let rows = read("x.parquet", &parquet_file(&batch, basic::Compression::SNAPPY), &ReadOptions::default())
        .unwrap();
    assert_eq!(rows.rows[0].prompt, Text::Conversation(vec![Message::new("user", "Hi")]));
    assert_eq!(rows.rows[0].rejected, Text::Conversation(vec![Message::new("assistant", "Bye")]));
}

#[test]
fn bad_lines_name_line_and_column() {
    let at = |line: &str| format!("{GOOD}\n{line}\n");
    check_bad("x.jsonl", at(r#"{"prompt": "é", "chosen" "b"}"#), ":2:26", "broken JSON: expected `:`");
    check_bad("x.jsonl", at(r#"{"prompt": "a""#), ":2:14", "broken JSON: EOF");
    check_bad("x.jsonl", at("[1]"), ":2:1", "not a JSON object");
    let problem = check_bad(
        "x.jsonl",
        at(r#"{"prompt": "a", "choosen": "b", "rejected": "c"}"#),
        ":2",
        "`chosen` is missing",
    );
    assert!(problem.hint_text().unwrap().contains("rename `choosen` to `chosen`?"));
    check_bad(
        "x.jsonl",
        at(r#"{"prompt": "a", "chosen": 7, "rejected": "c"}"#),
        ":2:17",
        "`chosen` is a number",
    );
    check_bad(
        "x.jsonl",
        at(r#"{"prompt": "\"rejected\":", "chosen": "b", "rejected": "b"}"#),
        ":2:44",
        "`chosen` equals `rejected`",
    );
    check_bad(
        "x.jsonl",
        at(r#"{"prompt": "a", "chosen": "", "rejected": "c"}"#),
        ":2:17",
        "`chosen` is empty",
    );
    check_bad(
        "x.jsonl",
        at(r#"{"prompt": "a", "chosen": "b", "rejected": "c", "label": 2}"#),
        ":2:49",
        "label 2 is not in [0, 1]",
    );
    check_bad(
        "x.jsonl",
        at(r#"{"prompt": "a", "chosen": "b", "rejected": "c", "label": NaN}"#),
        ":2:58",
        "broken JSON",
    );
    check_bad(
        "x.jsonl",
        [at("").as_bytes(), b"{\"prompt\": \"\xc3\xa9\xff\"}"].concat(),
        ":3:14",
        "invalid UTF-8",
    );
}

#[test]
fn bad_files_name_the_place() {
    check_bad("x.jsonl", "", ":1", "holds no rows");
    check_bad("x.jsonl", "\n \n", ":1", "holds no rows");
    check_bad("x.json", "[]", ":1", "holds no rows");
    check_bad("x.json", format!("[{GOOD},\n  {{\"prompt\": 3}}]"), ":2", "`chosen` is missing");
    check_bad(
        "x.json",
        format!("[{GOOD},\n  {{\"prompt\": \"a\",\n \"chosen\": \"b\", \"rejected\": 1}}]"),
        ":3:17",
        "`rejected` is a number",
    );
    check_bad("x.json", format!("[{GOOD},\n  oops]"), ":2:3", "broken JSON");
    check_bad("x.csv", "prompt,chosen,rejected\na,b,c\na,b\n", ":3", "broken CSV");
    check_bad("x.csv", "prompt,chosen,rejected,label\na,b,c,nan\n", ":2", "label \"nan\" is not in [0, 1]");
    check_bad("x.csv", b"prompt,chosen,rejected\na,\xff,c\n", ":2", "invalid UTF-8");
    let lines: String = (0..2000)
        .map(|row| format!("{{\"prompt\": \"{row}\", \"chosen\": \"b{row}\", \"rejected\": \"c\"}}\n"))
        .collect();
    let whole = gzip(lines.as_bytes());
    let problem = read("x.jsonl.gz", &whole[..whole.len() / 2], &ReadOptions::default()).unwrap_err();
    assert!(problem.message().contains("cut short"), "{problem}");
    assert!(problem.to_string().contains("x.jsonl.gz:"), "{problem}");
    let mut damaged = whole.clone();
    damaged[whole.len() - 6] ^= 0xff;
    let problem = read("x.jsonl.gz", &damaged, &ReadOptions::default()).unwrap_err();
    assert!(problem.message().contains("damaged"), "{problem}");
    let parquet = parquet_file(&plain_batch(), basic::Compression::SNAPPY);
    check_bad("x.parquet", &parquet[..parquet.len() / 2], ":1", "cannot read the Parquet file");
    check_bad("x.parquet", "{}", ":1", "cannot read the Parquet file");
    let numbers =
        RecordBatch::try_from_iter([("chosen", strings(&["b"])), ("reject", strings(&["c"]))]).unwrap();
    let problem = check_bad(
        "x.parquet",
        parquet_file(&numbers, basic::Compression::SNAPPY),
        ":1",
        "`rejected` is missing",
    );
    assert!(problem.hint_text().unwrap().contains("rename `reject` to `rejected`?"));
    let options = ReadOptions { max_line_bytes: 16, ..ReadOptions::default() };
    assert!(
        read("x.jsonl", GOOD.as_bytes(), &options).unwrap_err().message().contains("longer than 16 bytes")
    );
    let missing = read_pairs(&["no-such-file.jsonl".into()], &ReadOptions::default()).unwrap_err();
    assert!(missing.message().contains("no-such-file.jsonl"), "{missing}");
}

#[test]
fn bad_rows_can_be_passed_over_and_are_counted() {
    let text = format!("{GOOD}\nnot json\n{{\"prompt\": \"x\"}}\n{GOOD}\n");
    let options = ReadOptions { on_bad_row: OnBadRow::Skip, ..ReadOptions::default() };
    let found = read("x.jsonl", text.as_bytes(), &options).unwrap();
    let report = &found.report;
    assert_eq!((report.rows, report.skipped, report.duplicates, report.problems.len()), (2, 2, 1, 2));
    assert!(report.problems[0].contains("x.jsonl:2:2: broken JSON"), "{}", report.problems[0]);
    assert_eq!((found.rows[1].place.line, found.rows[1].id), (4, 1));
    let problem = read("x.jsonl", b"{}\n{}\n", &options).unwrap_err();
    assert_eq!(problem.message(), "none of 2 rows can be used");
}

#[test]
fn folders_are_read_in_the_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    for (name, prompt) in [("b.jsonl", "2"), ("a.jsonl", "1"), ("README.md", "3")] {
        std::fs::write(folder.path().join(name), GOOD.replace("\"a\"", &format!("\"{prompt}\""))).unwrap();
    }
    let found = read_pairs(&[folder.path().to_owned()], &ReadOptions::default()).unwrap();
    let prompts: Vec<_> = found.rows.iter().map(|row| row.prompt.clone()).collect();
    assert_eq!(prompts, [Text::Plain("1".into()), Text::Plain("2".into())]);
    assert_eq!(found.report.files, 2);
    let empty = tempfile::tempdir().unwrap();
    let problem = read_pairs(&[empty.path().to_owned()], &ReadOptions::default()).unwrap_err();
    assert!(problem.message().contains("no data file in the folder"), "{problem}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes, reading ends in rows or in an error that names the file.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..6_usize) {
        let name = ["x.jsonl", "x.json", "x.csv", "x.parquet", "x.tsv", "x.gz"][kind];
        let options = ReadOptions { on_bad_row: OnBadRow::Skip, ..ReadOptions::default() };
        let _ = read(name, &bytes, &options);
        let _ = read(name, &[b"\x1f\x8b\x08\0\0\0\0\0\0\0", &bytes[..]].concat(), &options);
        let _ = read(name, &[b"[{", &bytes[..]].concat(), &options);
    }

    /// The same for JSON that is almost right, which gets further into the parsers.
    #[test]
    fn almost_rows_never_panic(text in r#"(\{|\[|\}|\]|"|\\|:|,|é|\n| |prompt|chosen|rejected|label|role|content|1){0,60}"#) {
        let options = ReadOptions { on_bad_row: OnBadRow::Stop, ..ReadOptions::default() };
        for name in ["x.jsonl", "x.csv"] {
            if let Err(problem) = read(name, text.as_bytes(), &options) {
                prop_assert!(problem.place_text().is_some_and(|place| place.contains(name)), "{problem}");
            }
        }
    }

    /// One damaged byte in a Parquet file.
    #[test]
    fn damaged_parquet_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = parquet_file(&plain_batch(), basic::Compression::SNAPPY);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = read("x.parquet", &bytes, &ReadOptions::default());
    }

    /// Any two texts that differ are split into a prompt and two answers that give them back.
    #[test]
    fn implicit_prompts_lose_nothing(a in "[ab é]{0,12}", b in "[ab é]{0,12}") {
        let line = serde_json::json!({"chosen": a, "rejected": b}).to_string();
        if let Ok(found) = read("x.jsonl", line.as_bytes(), &ReadOptions::default()) {
            let join = |answer: &Text| match (&found.rows[0].prompt, answer) {
                (Text::Plain(prompt), Text::Plain(answer)) => format!("{prompt}{answer}"),
                _ => unreachable!("plain rows stay plain"),
            };
            prop_assert_eq!(join(&found.rows[0].chosen), a);
            prop_assert_eq!(join(&found.rows[0].rejected), b);
        }
    }
}
