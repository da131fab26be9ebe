//! Tests of [`super`]: sums are DPO's rewards; what is shown is readable, whole and harmless.

use polo_lm::{
    encode::Limits,
    family::{Family, Preset, new_config},
    rows::{About, PairRow, Place, Text},
    vocabulary::{NewSpecials, train_bpe},
    weights,
};
use polo_nn::device;
use polo_run::seed::Seeds;

use super::*;
use crate::{
    methods::{dpo::Dpo, token_dpo_q::TokenDpoQ},
    objective::{Batch, PairObjective, Rows, differentiate},
};

const TEXTS: [&str; 3] =
    ["Grüezi, <b>wie</b> geht's?\n", "Danke 🦀 gut.\u{1b}[31m", "日本語\tなし & \u{202e}xyz"];

fn tokenizer() -> Tokenizer {
    let home = tempfile::tempdir().unwrap();
    train_bpe(TEXTS.iter().copied(), 300, &NewSpecials::default(), home.path()).unwrap();
    Tokenizer::load(home.path()).unwrap()
}

fn model(vocabulary: usize, seed: u64) -> LanguageModel {
    let mut config = new_config(Family::Llama, Preset::Tiny, vocabulary, 128, None, 1);
    config["initializer_range"] = 0.3.into();
    weights::init(&config, &Seeds::new(seed), &device::parse("cpu").unwrap()).unwrap()
}

fn examples(tokenizer: &Tokenizer) -> Vec<Example> {
    let plain = |text: &str| Text::Plain(text.into());
    let row = |n: usize| PairRow {
        prompt: plain("Sag: "),
        chosen: plain(TEXTS[n]),
        rejected: plain(TEXTS[(n + 1) % 3]),
        label: 1.0,
        about: About::default(),
        place: Place { file: std::path::Path::new("pairs.jsonl").into(), line: n + 1 },
        id: n as u64,
    };
    let rows = Rows::Pairs((0..3).map(row).collect());
    TokenDpoQ::default().encode(&rows, tokenizer, &Limits::new(128)).unwrap().rows
}

#[test]
fn sums_over_tokens_are_dpo_s_rewards() {
    let tokenizer = tokenizer();
    let (one, other) = (model(tokenizer.vocabulary(), 1), model(tokenizer.vocabulary(), 2));
    let (examples, training, beta) = (examples(&tokenizer), Training::default(), 0.3);
    let pairs = explain_pairs(&one, &other, &tokenizer, &examples, beta, &training).unwrap();
    assert_eq!(pairs.len(), 3);
    let (policy, reference) = (
        trainer::score(&one, &examples, &training, |_| {}),
        trainer::score(&other, &examples, &training, |_| {}),
    );
    let objective = Dpo { beta, ..Dpo::default() };
    for (n, pair) in pairs.iter().enumerate() {
        for (slot, answer) in [&pair.chosen, &pair.rejected].into_iter().enumerate() {
            let sequence = beta * (policy[n][slot] - reference[n][slot]);
            assert!((answer.reward - sequence).abs() < 1e-12 * sequence.abs().max(1.0));
            for token in &answer.tokens {
                assert!((token.reward - beta * (token.reference_nll - token.nll)).abs() < 1e-12);
            }
        }
        // And those of the loss that was trained with.
        let mut batch = Batch::new(2, true);
        batch.push(&examples[n], &policy[n], &reference[n], &[0.0, 0.0]);
        let loss = differentiate(&objective, &batch);
        assert!((loss.metrics.get("rewards/margins").unwrap() - pair.margin).abs() < 1e-9);
        assert!((loss.sum() - (-pair.margin).exp().ln_1p()).abs() < 1e-9);
    }
    // A model against itself has no rewards at all.
    let none = explain_pairs(&one, &one, &tokenizer, &examples, beta, &training).unwrap();
    assert!(none.iter().all(|pair| pair.chosen.tokens.iter().all(|token| token.reward == 0.0)));
}

#[test]
fn texts_of_tokens_are_the_text_of_the_answer() {
    let tokenizer = tokenizer();
    for example in examples(&tokenizer) {
        let tree = &example.trees[0];
        for answer in &tree.answers {
            let texts = texts(&tokenizer, &tree.prompt, answer);
            assert_eq!(texts.len(), answer.len());
            assert_eq!(texts.concat(), tokenizer.decode(answer, false));
            assert_eq!(texts.last().unwrap(), "<|end|>");
        }
    }
}

fn pair(tokens: &[(&str, f64)]) -> Pair {
    let token = |&(text, reward): &(&str, f64)| TokenReward {
        token: text.into(),
        id: 7,
        reward,
        nll: 1.0,
        reference_nll: 1.0 + reward,
    };
    let answer = |tokens: &[(&str, f64)]| Answer {
        reward: tokens.iter().map(|(_, reward)| reward).sum(),
        tokens: tokens.iter().map(token).collect(),
    };
    Pair {
        row: "pairs.jsonl:1".into(),
        prompt: "x\n".into(),
        chosen: answer(tokens),
        rejected: answer(&tokens[..1]),
        margin: 0.5,
    }
}

#[test]
fn what_is_shown_is_readable_whole_and_harmless() {
    let pairs = [pair(&[("a", 0.5), (" b\n", -1.0), ("", 0.01), ("\u{1b}[2J<i>\u{202e}&", 0.2)])];
    let plain = to_terminal(&pairs, 0.1, false);
    assert_eq!(
        plain,
        "Rewards of tokens, beta log pi/ref at beta 0.1; the strongest is 1.000.\n\npairs.jsonl:1  margin +0.500\n  \
         prompt           x\u{23ce}\n  chosen    -0.290  a[+0.50] b\u{23ce}[-1.00]\u{25af}[+0.01]\u{241b}[2J<i>&[+0.20]\n  \
         rejected  +0.500  a[+0.50]\n"
    );
    let coloured = to_terminal(&pairs, 0.1, true);
    for part in
        ["48;5;159ma\u{1b}[0m", "48;5;203m b\u{23ce}\u{1b}[0m", "\u{25af}", "48;5;195m\u{241b}[2J<i>&"]
    {
        assert!(coloured.contains(part), "{part:?} is not in {coloured:?}");
    }
    // Escapes of the data never reach the terminal: all that are left are our own.
    assert_eq!(coloured.matches('\u{1b}').count(), coloured.matches("\u{1b}[0m").count() * 2);

    let page = to_report(&pairs, 0.1).to_html();
    assert!(
        page.contains("\u{23ce}\n</span>") && page.contains("&lt;i&gt;&amp;") && !page.contains("<i>"),
        "{page}"
    );
    assert!(page.contains("rgba(213,94,0,0.65)") && page.contains("prefers-color-scheme:dark"));
    for outside in ["<script", "http://", "https://", "url(", "\u{1b}", "\u{202e}"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let line = serde_json::to_value(&pairs[0]).unwrap();
    assert_eq!(line["chosen"]["tokens"][1]["token"], " b\n");
    assert_eq!((&line["margin"], &line["rejected"]["reward"]), (&0.5.into(), &0.5.into()));
}

#[test]
fn what_has_no_rewards_is_refused() {
    let tokenizer = tokenizer();
    let (model_of, examples) = (|size| model(size, 1), examples(&tokenizer));
    let training = Training::default();
    let good = model_of(tokenizer.vocabulary());
    let small = token_rewards(&good, &model_of(260), &examples, 0.1, &training).unwrap_err();
    assert!(small.message().contains("in the vocabulary of one model alone"), "{small}");
    let mut broken = good.clone();
    for parameter in broken.parameters.iter_mut() {
        parameter.value = parameter.value.clone() * f32::NAN;
    }
    let problem = token_rewards(&broken, &good, &examples, 0.1, &training).unwrap_err();
    assert!(problem.kind() == Kind::Diverged && problem.to_string().contains("pairs.jsonl:1"), "{problem}");
}
