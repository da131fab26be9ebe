//! Logged decisions in Vowpal Wabbit's text form: lines up to an empty one.
//!
//! ```text
//! shared |User segment=east age:3.5
//! |Action id=a0
//! 1:-1.0:0.25 |Action id=a1
//! ```
//!
//! The line of the action that was taken begins with `action:cost:probability`; the number before the first colon is not
//! used, the line is. `|namespace:factor name:value`: a feature without a value has 1, zeros are left out.

use super::source::{Flaw, Line};
use crate::features::{Decision, Example, Feature, Outcome, hash};

/// Reads a decision from its lines.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &str) -> Result<Line, Flaw> {
    let mut decision = Decision { weight: 1.0, ..Decision::default() };
    let mut any = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let flaw = |what: String, column: usize| Flaw { what, line: number, column: Some(column + 1) };
        let bar = line.find('|').ok_or_else(|| flaw("there is no `|` before features".into(), line.len()))?;
        let mut example = Example::default();
        features(line, bar, &mut example).map_err(|(what, column)| flaw(what, column))?;
        let mut words = line[..bar].split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some(tag) = words.next().or(Some(first)).filter(|word| word.starts_with('\'')) {
            tag[1..].clone_into(&mut decision.event);
        }
        if first == "shared" {
            if any {
                return Err(flaw("`shared` must stand in the first line of a decision".into(), 0));
            }
            decision.shared = example;
        } else {
            if first.contains(':') {
                if decision.outcome.is_some() {
                    return Err(flaw("two actions of one decision have a cost".into(), 0));
                }
                let action = decision.actions.len();
                decision.outcome = Some(outcome(first, action).map_err(|what| flaw(what, 0))?);
            } else if !first.is_empty() && !first.starts_with('\'') {
                return Err(flaw(format!("`{first}` is neither `shared` nor action:cost:probability"), 0));
            }
            decision.actions.push(example);
        }
        any = true;
    }
    match (any, decision.actions.is_empty()) {
        (false, _) => Ok(Line::Other),
        (true, true) => Err(Flaw { what: "there is no action".into(), line: 0, column: None }),
        _ => Ok(Line::Decision(decision)),
    }
}

fn outcome(label: &str, action: usize) -> Result<Outcome, String> {
    let parts: Vec<&str> = label.split(':').collect();
    let [_, cost, probability] = parts[..] else {
        return Err(format!("`{label}` is not action:cost:probability"));
    };
    let number = |text: &str| text.parse::<f32>().map_err(|_| format!("`{text}` in `{label}` is no number"));
    Ok(Outcome { action, cost: number(cost)?, probability: number(probability)? })
}

/// The features of a line from its first bar on; what is wrong, and at which byte.
fn features(line: &str, bar: usize, example: &mut Example) -> Result<(), (String, usize)> {
    let mut at = bar;
    for part in line[bar + 1..].split('|') {
        let start = at + 1;
        at = start + part.len();
        let named = !part.starts_with(|c: char| c.is_ascii_whitespace()) && !part.is_empty();
        let mut words = part.split_ascii_whitespace();
        let head = if named { words.next().unwrap_or_default() } else { "" };
        let place = |word: &str| start + (word.as_ptr() as usize - part.as_ptr() as usize);
        let (name, factor) = value(head).map_err(|what| (what, start))?;
        let letter = name.bytes().next().unwrap_or(b' ');
        let seed = hash(name, 0);
        for word in words {
            let (name, value) = value(word).map_err(|what| (what, place(word)))?;
            let value = value * factor;
            if !value.is_finite() {
                return Err((format!("the value of `{word}` is no finite number"), place(word)));
            }
            if value != 0.0 {
                example.space_mut(letter).push(Feature { hash: hash(name, seed), value });
            }
        }
    }
    Ok(())
}

/// A name, and the number after its last colon, or 1.
fn value(word: &str) -> Result<(&str, f32), String> {
    match word.rsplit_once(':') {
        None => Ok((word, 1.0)),
        Some((name, value)) => {
            let number = value.parse().map_err(|_| format!("`{value}` in `{word}` is no number"))?;
            Ok((name, number))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_a_decision() {
        let text = "shared 'e7 |User segment=east age:3.5 |Other:2 x y:0.5 z:0\n|Action id=a0\n\
                    1:-1.0:0.25 |Action id=a1 17:2\n";
        let Ok(Line::Decision(decision)) = parse(text) else { panic!("{:?}", parse(text)) };
        assert_eq!(decision.event, "e7");
        let user = hash("User", 0);
        let of = |name: &str, value| Feature { hash: hash(name, user), value };
        assert_eq!(decision.shared.space(b'U'), [of("segment=east", 1.0), of("age", 3.5)]);
        let other: Vec<f32> = decision.shared.space(b'O').iter().map(|feature| feature.value).collect();
        assert_eq!(other, [2.0, 1.0]);
        assert_eq!(decision.outcome, Some(Outcome { action: 1, cost: -1.0, probability: 0.25 }));
        assert_eq!(decision.actions[1].space(b'A')[1].hash, hash("Action", 0).wrapping_add(17));
        assert_eq!(parse("\n\n"), Ok(Line::Other));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "[a-z0-9:|' \n.é\\-]{0,60}") {
            if let Ok(Line::Decision(decision)) = parse(&text) {
                proptest::prop_assert!(!decision.actions.is_empty());
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        #[track_caller]
        fn check(text: &str, what: &str, line: usize, column: usize) {
            let flaw = parse(text).unwrap_err();
            assert!(flaw.what.contains(what), "{flaw:?}");
            assert_eq!((flaw.line, flaw.column), (line, Some(column)));
        }
        check("shared |U a\n|A x:y b\n", "`y` in `x:y` is no number", 1, 4);
        check("|A a\n0:1 |A b\n", "not action:cost:probability", 1, 1);
        check("|A a\n0:one:1 |A b\n", "`one`", 1, 1);
        check("0:1:1 |A a\n0:1:1 |A b\n", "two actions", 1, 1);
        check("|A a\nshared |U a\n", "first line", 1, 1);
        check("|A a\nnothing\n", "no `|`", 1, 8);
        check("|A x:nan\n", "no finite number", 0, 4);
        check("what |A x\n", "neither", 0, 1);
        assert!(parse("shared |U a\n").unwrap_err().what.contains("no action"));
    }
}
