//! Films of policies through the real binary: what is written is what was asked for, and what cannot be filmed is refused.
#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeSet, fs, io::BufReader};

use common::{done, polo};

use tempfile::TempDir;

fn trained(environment: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    done(
        folder.path(),
        &format!(
            "train ppo --env {environment} --out run --quiet --set training.steps=64 --set method.copies=1 --set method.rollout=64 --set training.evaluation_episodes=1"
        ),
    );
    folder
}

#[test]
fn a_gif_has_a_frame_for_every_step() {
    let run = trained("CartPole-v1");
    let folder = run.path();
    let said = done(folder, "evaluate --model run/final --episodes 1 --seed 5 --film a.gif --json");
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    // Further episodes are not filmed, and the film changes no figure.
    let many = "evaluate --model run/final --episodes 3 --seed 5 --json";
    assert_eq!(done(folder, many), done(folder, &format!("{many} --film b.gif")));
    let file = fs::read(folder.join("a.gif")).unwrap();
    assert!(file == fs::read(folder.join("b.gif")).unwrap());

    let mut decoder = gif::DecodeOptions::new().read_info(&*file).unwrap();
    assert_eq!([decoder.width(), decoder.height()], [400, 126]);
    let (mut delays, mut different) = (Vec::new(), BTreeSet::new());
    while let Some(frame) = decoder.read_next_frame().unwrap() {
        delays.push(frame.delay);
        different.insert((frame.left, frame.top, frame.buffer.to_vec()));
    }
    assert_eq!(delays.len() as f64, found["length (steps)"]["mean"].as_f64().unwrap() + 1.0);
    assert!(different.len() > 5 && different.len() > delays.len() / 2, "{} of {delays:?}", different.len());
    // A step takes 0.02 s, and the end stands still.
    assert_eq!((delays[0], delays.pop()), (2, Some(102)));
    assert!(delays.iter().all(|&delay| delay == 2));
}

#[test]
fn a_png_has_frames_side_by_side() {
    let run = trained("Pendulum-v1");
    done(run.path(), "evaluate --model run/final --episodes 1 --film strip.PNG");
    let file = BufReader::new(fs::File::open(run.path().join("strip.PNG")).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let found = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((found.width, found.height, found.color_type), (6 * 240 + 5 * 4, 240, png::ColorType::Rgb));
    let frame = |number: usize| -> Vec<&[u8]> {
        pixels.chunks_exact(1460 * 3).map(|row| &row[number * 244 * 3..][..240 * 3]).collect()
    };
    assert_eq!((0..6).map(frame).collect::<BTreeSet<_>>().len(), 6);
}

#[test]
fn what_cannot_be_filmed_is_refused() {
    let run = trained("CartPole-v1");
    let refused = |line: &str, parts: &[&str]| {
        let out = polo(run.path(), line).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && !said.contains("panicked"), "{line}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{line}: {said}");
    };
    let evaluate = "evaluate --model run/final --episodes 1";
    refused(&format!("{evaluate} --film a.mp4"), &["`a.mp4` is no file for a film", "--film", ".gif"]);
    refused(&format!("{evaluate} --film nowhere/a.gif"), &["nowhere/a.gif"]);
    refused(
        "evaluate --model run/final --data x.jsonl --film a.gif",
        &["--data", "cannot be used with", "--film"],
    );
    refused("evaluate --model run/final --film a.gif", &["--episodes"]);
}
