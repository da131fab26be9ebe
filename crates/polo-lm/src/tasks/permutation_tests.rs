use std::fs;

use polo_run::stats::mean;

use super::*;
use crate::{
    encode::Limits,
    judge::{Labels, collect_pairs},
    read::{ReadOptions, read_completions, read_pairs, read_prompts},
    tasks::{completions_jsonl, pairs_jsonl, prompts_jsonl},
    templates::encode_revisions,
    tokens::Tokenizer,
};

use Preference::{BradleyTerry, Majority, Reward};
use Region::{Even, InDistribution, OutOfDistribution};

fn task(seed: u64) -> Permutation {
    Permutation::new(PermutationSettings::default(), &Seeds::new(seed)).unwrap()
}

/// An answer that is right exactly where `right` has a 1.
fn answer(task: &Permutation, prompt: &[usize], right: &str) -> Vec<usize> {
    let spoil = |(symbol, mark)| if mark == '1' { symbol } else { (symbol + 1) % 8 };
    task.solution(prompt).into_iter().zip(right.chars()).map(spoil).collect()
}

fn close(found: f64, expected: f64, within: f64) {
    assert!((found - expected).abs() <= within, "{found} is not {expected}");
}

#[test]
fn the_hidden_map_is_a_permutation_of_the_seed() {
    let mut images = task(1).hidden.clone();
    assert_eq!(images, task(1).hidden);
    assert_ne!(images, task(2).hidden);
    images.sort_unstable();
    assert_eq!(images, (0..8).collect::<Vec<_>>());
}

#[test]
fn the_gold_reward_counts_right_positions() {
    let task = task(1);
    let prompt = &task.prompts(Even, 1, "test")[0];
    for (right, expected) in [("11111111", 8), ("00000000", 0), ("10110000", 3)] {
        assert_eq!(task.gold(prompt, &answer(&task, prompt, right)), expected);
    }
    let solution = task.write_answer(&task.solution(prompt));
    let gold = |form, answer: &str| task.gold_of_text(&task.write_prompt(prompt, form), answer).unwrap();
    assert_eq!(gold(Form::Bare, &solution), 8);
    assert_eq!(gold(Form::Asked, &solution), 8);
    assert_eq!(gold(Form::Bare, ""), 0);
    assert_eq!(gold(Form::Bare, &format!("{solution} 0 0")), 8);
    assert_eq!(gold(Form::Bare, &format!("word {solution}")), gold(Form::Bare, &format!("99 {solution}")));
    assert_eq!(gold(Form::Bare, solution.rsplit_once(' ').unwrap().0), 7);
}

#[test]
fn foreign_prompts_are_refused() {
    for text in ["", "a b c", "a b c d e f g h a", "a b c d e f g z", "a b c d e f g 1"] {
        let problem = task(1).read_prompt(text).unwrap_err();
        assert!(problem.hint_text().unwrap().contains("8 letters from a to h"), "{problem}");
    }
}

#[test]
fn preferences_follow_their_definitions() {
    let task = task(3);
    let prompt = &task.prompts(Even, 1, "test")[0];
    let check = |by, a: &str, b: &str, expected: f64| {
        let [a, b] = [a, b].map(|right| answer(&task, prompt, right));
        close(task.prefers(by, prompt, &a, &b), expected, 1e-12);
        close(task.prefers(by, prompt, &b, &a), 1.0 - expected, 1e-12);
    };
    check(BradleyTerry, "11100000", "10000000", 1.0 / (1.0 + (-2.0_f64).exp()));
    check(BradleyTerry, "10000000", "01000000", 0.5);
    check(Reward, "11100000", "10000011", 0.5);
    check(Reward, "11110000", "10000011", 1.0);
    // Graders see positions 0-2, 3-5 and 6-7.
    check(Majority, "11111100", "00010011", 1.0);
    check(Majority, "11100000", "00000010", 0.5);
    check(Majority, "11100000", "00000000", 1.0);
    check(Majority, "11100000", "00010010", 0.0);
    // A cycle: no reward explains it.
    let (d, e, f) = ("11110000", "11000011", "10011010");
    check(Majority, d, e, 1.0);
    check(Majority, e, f, 1.0);
    check(Majority, f, d, 1.0);
}

#[test]
fn exact_figures_equal_the_card_and_sampling() {
    let task = task(5);
    let [channel, emphatic, human] =
        [Source::Channel, Source::Emphatic, Source::Human].map(|s| task.channel(s));
    for region in [InDistribution, OutOfDistribution, Even] {
        close(task.expected_gold(&channel, region), 8.0 * (0.35 + 0.65 / 8.0), 1e-12);
        close(task.expected_gold(&human, region), 8.0 * (0.6 + 0.4 / 8.0), 1e-12);
        // The reference's revisions stay where they are: the card's flat curve.
        close(task.expected_gold(&task.revised(&channel), region), 3.45, 1e-12);
        close(task.kl(&channel, &channel, region), 0.0, 1e-12);
    }
    let prompts = task.prompts(InDistribution, 4_000, "test");
    let [left, right, human_answers] = [Source::Channel, Source::Emphatic, Source::Human]
        .map(|source| task.answers(&prompts, source, "test"));
    let average =
        |value: &dyn Fn(usize) -> f64| mean(&(0..prompts.len()).map(value).collect::<Vec<_>>()).unwrap();
    let gold = average(&|i| task.gold(&prompts[i], &right[i]) as f64);
    close(gold, task.expected_gold(&emphatic, InDistribution), 0.1);
    for by in [BradleyTerry, Majority, Reward] {
        let found = average(&|i| task.prefers(by, &prompts[i], &left[i], &human_answers[i]));
        close(found, task.win_rate(by, &channel, &human, InDistribution), 0.03);
        close(task.win_rate(by, &human, &human, Even), 0.5, 1e-12);
    }
    let kl = average(&|i| {
        emphatic.log_probability(&prompts[i], &right[i]) - channel.log_probability(&prompts[i], &right[i])
    });
    close(kl, task.kl(&emphatic, &channel, InDistribution), 0.15);
}

#[test]
fn regions_mirror_each_other() {
    let task = task(7);
    let letters = task.letters(InDistribution);
    close(letters[..4].iter().sum(), 0.9, 1e-12);
    let mut mirrored = task.letters(OutOfDistribution);
    mirrored.rotate_left(4);
    letters.iter().zip(&mirrored).for_each(|(a, b)| close(*a, *b, 1e-12));
    let frequent = |region| {
        let drawn = task.prompts(region, 1_000, "test").concat();
        drawn.iter().filter(|letter| **letter < 4).count() as f64 / drawn.len() as f64
    };
    close(frequent(InDistribution), 0.9, 0.02);
    close(frequent(OutOfDistribution), 0.1, 0.02);
    close(frequent(Even), 0.5, 0.03);
}

#[test]
fn the_second_policy_multiplies_odds() {
    let task = task(7);
    let [plain, emphatic] = [Source::Channel, Source::Emphatic].map(|source| task.channel(source));
    for letter in 0..8 {
        let odds = |channel: &Channel| channel.probability(letter, 0) / channel.probability(letter, 7);
        close(odds(&emphatic) / odds(&plain), 10.0, 1e-9);
        close((0..8).map(|symbol| emphatic.probability(letter, symbol)).sum(), 1.0, 1e-12);
    }
}

#[test]
fn demonstrated_revisions_keep_what_they_were_given() {
    let task = task(9);
    let all = task.demonstrations(Even, 4_000, "sft");
    let revisions: Vec<_> = all.iter().filter_map(|one| Some((one, one.earlier.as_ref()?))).collect();
    assert_eq!(revisions.len(), 2_000);
    let kept = revisions
        .iter()
        .map(|(one, earlier)| one.answer.iter().zip(*earlier).filter(|(a, b)| a == b).count() as f64 / 8.0);
    // Kept on purpose 0.7; drawn again 0.3 x P(channel hits a symbol whose quality averages 1/2).
    let again = 0.5 * (0.35 + 0.65 / 8.0) + 0.5 / 8.0;
    close(mean(&kept.collect::<Vec<_>>()).unwrap(), 0.7 + 0.3 * again, 0.02);
    // Exact reference of one revision: every position sums to one.
    let (prompt, earlier) = (&[2][..], &[5][..]);
    let total: f64 = (0..8).map(|new| task.revision_log_probability(prompt, earlier, &[new]).exp()).sum();
    close(total, 1.0, 1e-12);
}

#[test]
fn parts_are_functions_of_the_seed_and_prefixes_of_each_other() {
    let (one, other) = (task(1), task(2));
    let draw = |task: &Permutation, n, part: &str| {
        (task.demonstrations(Even, n, part), task.comparisons(Even, Source::Channel, n, part, Form::Bare))
    };
    assert_eq!(draw(&one, 20, "a"), draw(&task(1), 20, "a"));
    assert_eq!(draw(&one, 20, "a").1[..7], draw(&one, 7, "a").1);
    assert_ne!(draw(&one, 20, "a"), draw(&one, 20, "b"));
    assert_ne!(draw(&one, 20, "a"), draw(&other, 20, "a"));
}

#[test]
fn files_read_back_as_the_rows_they_were_written_from() {
    let folder = tempfile::tempdir().unwrap();
    let task = task(11);
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        vec![path]
    };
    let options = ReadOptions::default();
    for labels in [Labels::Hard, Labels::Soft] {
        let drawn = task.comparisons(InDistribution, Source::Emphatic, 50, "train", Form::Bare);
        let pairs = collect_pairs(&task.judge(BradleyTerry), &drawn, labels, &Seeds::new(1)).unwrap();
        let read = read_pairs(&write("pairs.jsonl", pairs_jsonl(&pairs)), &options).unwrap().rows;
        assert_eq!(read.len(), 50);
        for (read, pair) in read.iter().zip(&pairs) {
            assert_eq!(
                (&read.prompt, &read.chosen, &read.rejected),
                (&pair.prompt, &pair.chosen, &pair.rejected)
            );
            assert_eq!((read.label, read.id, read.place.line), (pair.label, pair.id, pair.place.line));
        }
    }
    let rows = task.completion_rows(&task.demonstrations(Even, 10, "sft")).unwrap();
    let read = read_completions(&write("sft.jsonl", completions_jsonl(&rows)), &options).unwrap().rows;
    let texts = |rows: &[CompletionRow]| -> Vec<_> {
        rows.iter().map(|row| (row.prompt.clone(), row.completion.clone())).collect()
    };
    assert_eq!(texts(&read), texts(&rows));
    let rows = task.prompt_rows(&task.prompts(OutOfDistribution, 10, "test"), Form::Asked);
    let read = read_prompts(&write("prompts.jsonl", prompts_jsonl(&rows)), &options).unwrap().rows;
    assert!(
        read.iter().zip(&rows).all(|(read, row)| (&read.prompt, &read.answer) == (&row.prompt, &row.answer))
    );
}

#[test]
fn every_word_is_one_token_of_the_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let task = task(13);
    assert_eq!(task.write_vocabulary(folder.path()).unwrap(), 4 + 2 + 8 + 8);
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    let drawn = task.comparisons(Even, Source::Channel, 3, "train", Form::Bare);
    let pairs = collect_pairs(&task.judge(Majority), &drawn, Labels::Hard, &Seeds::new(1)).unwrap();
    let encoded = encode_revisions(&pairs, &task.templates(), &tokenizer, &Limits::new(64)).unwrap();
    for tokens in &encoded.rows {
        // Begin, 8 letters, GEN; and REV with 8 numbers between. Answers end in the end token.
        assert_eq!((tokens.generate.len(), tokens.revise_chosen.len(), tokens.chosen.len()), (10, 19, 9));
        let ids = [&tokens.revise_chosen[..], &tokens.chosen, &tokens.rejected].concat();
        let unknown = 3;
        assert!(!ids.contains(&unknown), "{ids:?}");
        assert_eq!(tokens.revise_chosen[10..18], tokens.chosen[..8]);
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let good = PermutationSettings::default();
    for settings in [
        PermutationSettings { alphabet: 1, ..good.clone() },
        PermutationSettings { alphabet: 27, ..good.clone() },
        PermutationSettings { length: 2, ..good.clone() },
        PermutationSettings { correct: 1.0, ..good.clone() },
        PermutationSettings { keep: f64::NAN, ..good.clone() },
        PermutationSettings { skew: 0.0, ..good.clone() },
    ] {
        assert!(Permutation::new(settings, &Seeds::new(1)).is_err());
    }
}
