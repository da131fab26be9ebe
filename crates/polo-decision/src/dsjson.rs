//! Logged decisions in Vowpal Wabbit's `dsjson`: a JSON object to a line.
//!
//! `c` holds the context: every key but `_multi` is a namespace that all actions share, `_multi` lists the actions.
//! Numbers are features; a text is a feature of weight 1, named after key and text together, blanks, `|` and `:` in it as
//! `_`; `true` is 1; zeros and `false` are left out; an array of numbers is a namespace of its own; an array of objects is
//! merged into one. `_labelIndex` says which action was taken, `_label_cost` what it cost, `_label_probability` how likely
//! it was.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{
    features::{Decision, Example, Feature, Outcome, hash},
    stream::source::Line,
};

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(rename = "_label_cost")]
    cost: Option<f32>,
    #[serde(rename = "_label_probability")]
    probability: Option<f32>,
    #[serde(rename = "_label_Action")]
    action: Option<u64>,
    #[serde(rename = "_labelIndex")]
    index: Option<u64>,
    #[serde(rename = "EventId", alias = "event_id", borrow)]
    event: Option<std::borrow::Cow<'a, str>>,
    a: Option<Vec<u64>>,
    #[serde(alias = "_p")]
    p: Option<Vec<f64>>,
    c: Option<Context>,
    pdrop: Option<f32>,
    #[serde(rename = "_skipLearn", default)]
    skip: bool,
}

/// Reads a line.
///
/// # Errors
/// What is wrong with it, and at which column, counted from 1, if that is known.
pub fn parse(line: &str) -> Result<Line, (String, Option<usize>)> {
    if !line.trim_start().starts_with('{') {
        return Err(("it is no JSON object".into(), Some(1)));
    }
    let record: Record = serde_json::from_str(line).map_err(|error| {
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        // What Rust calls its numbers means nothing to the owner of a log.
        let text =
            text.replace("expected f32", "expected a number").replace("expected f64", "expected a number");
        (text.replace("expected u64", "expected a whole number"), Some(error.column()))
    })?;
    let (Some(shown), false) = (&record.a, record.skip) else { return Ok(Line::Other) };
    let wrong = |what: String| Err((what, None));
    if let Some(probabilities) = &record.p
        && probabilities.len() != shown.len()
    {
        return wrong(format!(
            "`a` has {} actions, and `p` {} probabilities",
            shown.len(),
            probabilities.len()
        ));
    }
    let Some(Context { shared, actions }) = record.c else { return wrong("there is no context `c`".into()) };
    if actions.is_empty() {
        return wrong("there is no action: `_multi` is missing or empty".into());
    }
    let weight = match record.pdrop {
        None => 1.0,
        Some(drop) if (0.0..1.0).contains(&drop) => 1.0 / (1.0 - drop),
        Some(drop) => return wrong(format!("`pdrop` is {drop}, and must be from 0 to below 1")),
    };
    let outcome = match record.cost {
        None => None,
        Some(cost) => {
            let action = record.index.or(record.action.and_then(|action| action.checked_sub(1)));
            let Some(action) = action else {
                return wrong("`_label_cost` is given, and neither `_labelIndex` nor `_label_Action`".into());
            };
            let Some(probability) = record.probability else {
                return wrong("`_label_cost` is given, and no `_label_probability`".into());
            };
            Some(Outcome { action: usize::try_from(action).unwrap_or(usize::MAX), cost, probability })
        }
    };
    let event = record.event.map(std::borrow::Cow::into_owned).unwrap_or_default();
    Ok(Line::Decision(Decision { event, shared, actions, outcome, weight }))
}

/// `c`.
#[derive(Default)]
struct Context {
    shared: Example,
    actions: Vec<Example>,
}

/// Where features go while they are read.
struct Place<'a> {
    example: &'a mut Example,
    letter: u8,
    seed: u32,
}

/// The namespace of features that stand in none.
const DEFAULT: &str = " ";

impl<'a> Place<'a> {
    fn of(example: &'a mut Example, namespace: &str) -> Self {
        let letter = namespace.bytes().next().unwrap_or(b' ');
        Self { example, letter, seed: hash(namespace, 0) }
    }

    fn add(&mut self, hash: u32, value: f32) {
        if value != 0.0 {
            self.example.space_mut(self.letter).push(Feature { hash, value });
        }
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = Context;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of namespaces")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Context, M::Error> {
                let mut context = Context::default();
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    match &*key {
                        "_multi" => context.actions = map.next_value_seed(Actions)?,
                        key => {
                            let place = Place::of(&mut context.shared, DEFAULT);
                            map.next_value_seed(Value { place, key })?;
                        }
                    }
                }
                Ok(context)
            }
        }
        deserializer.deserialize_map(Whole)
    }
}

/// `_multi`.
struct Actions;

impl<'de> DeserializeSeed<'de> for Actions {
    type Value = Vec<Example>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Actions {
    type Value = Vec<Example>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of actions")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
        let mut actions = Vec::new();
        loop {
            let mut action = Example::default();
            let place = Place::of(&mut action, DEFAULT);
            if list.next_element_seed(Object { place })?.is_none() {
                return Ok(actions);
            }
            actions.push(action);
        }
    }
}

/// An object whose keys are features of a namespace, or namespaces.
struct Object<'a> {
    place: Place<'a>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of features")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Place { example, letter, seed } = self.place;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let place = Place { example: &mut *example, letter, seed };
            map.next_value_seed(Value { place, key: &key })?;
        }
        Ok(())
    }
}

/// What stands behind a key.
struct Value<'a> {
    place: Place<'a>,
    key: &'a str,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.key {
            "_text" => deserializer.deserialize_any(self),
            "_multi" => Err(D::Error::custom("`_multi` stands inside of a namespace")),
            key if key.starts_with('_') => deserializer.deserialize_any(IgnoredAny).map(|_| ()),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number, a text, true or false, or a namespace")
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<(), E> {
        if value {
            self.place.add(hash(self.key, self.place.seed), 1.0);
        }
        Ok(())
    }

    fn visit_f64<E>(mut self, value: f64) -> Result<(), E> {
        self.place.add(hash(self.key, self.place.seed), value as f32);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(mut self, value: &str) -> Result<(), E> {
        let seed = self.place.seed;
        match self.key {
            "_text" => value.split_ascii_whitespace().for_each(|word| self.place.add(hash(word, seed), 1.0)),
            key => {
                // What would part features in the text form stands as `_`, as in Vowpal Wabbit.
                let whole = |c: char| if matches!(c, ' ' | '\t' | '|' | ':') { '_' } else { c };
                let name: String = key.chars().chain(value.chars().map(whole)).collect();
                self.place.add(hash(&name, seed), 1.0);
            }
        }
        Ok(())
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<(), M::Error> {
        Object { place: Place::of(self.place.example, self.key) }.visit_map(map)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        let Place { example, letter, seed } = Place::of(self.place.example, self.key);
        let mut position = 0;
        while list
            .next_element_seed(Element { place: Place { example: &mut *example, letter, seed }, position })?
            .is_some()
        {
            position += 1;
        }
        Ok(())
    }
}

/// An element of an array: a number by its position, or an object that is merged in.
struct Element<'a> {
    place: Place<'a>,
    position: u32,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("numbers or objects in an array")
    }

    fn visit_f64<E>(mut self, value: f64) -> Result<(), E> {
        self.place.add(self.place.seed.wrapping_add(self.position), value as f32);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<(), M::Error> {
        Object { place: self.place }.visit_map(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(line: &str) -> Decision {
        match parse(line).unwrap() {
            Line::Decision(decision) => decision,
            Line::Other => panic!("no decision"),
        }
    }

    #[test]
    fn a_line_is_read() {
        let line = r#"{"_label_cost":-1.0,"_label_probability":0.05,"_label_Action":4,"_labelIndex":3,"o":[{"v":1}],
            "Timestamp":"2020-01-01","Version":"1","EventId":"e7","a":[4,2,1,3],"p":[0.05,0.05,0.05,0.85],
            "c":{"age":3,"User":{"city":"Oslo","vip":true,"new":false,"zero":0},"_multi":[{"Act":{"i1":1.5}},{"Act":{"i2":1}},
            {"Act":{"i3":1}},{"Act":[0.5,0,2.0]}]},"VWState":{"m":"x"}}"#;
        let found = decision(line);
        assert_eq!(found.event, "e7");
        assert_eq!(found.outcome, Some(Outcome { action: 3, cost: -1.0, probability: 0.05 }));
        let user = hash("User", 0);
        assert_eq!(
            found.shared.space(b'U'),
            [
                Feature { hash: hash("cityOslo", user), value: 1.0 },
                Feature { hash: hash("vip", user), value: 1.0 }
            ]
        );
        assert_eq!(found.shared.space(b' '), [Feature { hash: hash("age", 0), value: 3.0 }]);
        assert_eq!(found.actions.len(), 4);
        let act = hash("Act", 0);
        assert_eq!(found.actions[0].space(b'A'), [Feature { hash: hash("i1", act), value: 1.5 }]);
        assert_eq!(
            found.actions[3].space(b'A'),
            [Feature { hash: act, value: 0.5 }, Feature { hash: act.wrapping_add(2), value: 2.0 }]
        );
    }

    /// As Vowpal Wabbit 9.11 hashes it: `cityNew_York` in `U`.
    #[test]
    fn a_text_is_one_word() {
        let of = |text: &str| {
            let found = decision(&format!(r#"{{"a":[1],"c":{{"U":{{"city":"{text}"}},"_multi":[{{}}]}}}}"#));
            found.shared.space(b'U')[0].hash & ((1 << 24) - 1)
        };
        assert_eq!(of("New York"), 8_492_751);
        assert_eq!(of("New York "), 12_529_917);
        assert_eq!([of("a|b"), of("a:b"), of("a_b")], [9_495_047; 3]);
        assert_eq!(of("tab\\tx"), 12_073_013);
    }

    #[test]
    fn the_label_may_be_missing_and_falls_back_on_its_action() {
        let line = |label: &str| format!(r#"{{{label}"a":[1,2],"c":{{"_multi":[{{"A":{{"x":1}}}},{{}}]}}}}"#);
        assert_eq!(decision(&line("")).outcome, None);
        let found = decision(&line(r#""_label_cost":0.5,"_label_probability":0.5,"_label_Action":2,"#));
        assert_eq!(found.outcome.map(|outcome| outcome.action), Some(1));
        assert_eq!(decision(&line(r#""pdrop":0.5,"#)).weight, 2.0);
        assert_eq!(parse(&line(r#""_skipLearn":true,"#)), Ok(Line::Other));
        assert_eq!(parse(r#"{"RewardValue":1}"#), Ok(Line::Other));
    }

    proptest::proptest! {
        /// A line that is cut or has a character changed is a decision, something else or an error, and never a panic.
        #[test]
        fn nothing_panics(cut in 0..160usize, at in 0..160usize, put in "[\\[\\]{}\",:0-9a-z_é\\-]") {
            let line = r#"{"_label_cost":-1.0,"_label_probability":0.5,"_labelIndex":0,"EventId":"e","a":[1,2],"c":{"U":{"x":1},"_multi":[{"A":{"i":"a"}},{"A":[1,2]}]}}"#;
            let mut changed: String = line.chars().take(at).chain(put.chars()).chain(line.chars().skip(at + 1)).collect();
            if cut < changed.len() && changed.is_char_boundary(cut) && cut % 3 == 0 {
                changed.truncate(cut);
            }
            if let Ok(Line::Decision(decision)) = parse(&changed) {
                let _ = decision.flaw();
                proptest::prop_assert!(!decision.actions.is_empty());
            }
        }
    }

    #[test]
    fn lines_that_cannot_be_used_say_why() {
        for (line, expected) in [
            (r#"{"a":[1],"#, "EOF"),
            ("not json", "no JSON object"),
            ("[1]", "no JSON object"),
            (r#"{"a": [1], "_label_cost": "dear"}"#, "string \"dear\", expected a number"),
            (r#"{"a": [1], "_labelIndex": true}"#, "expected a whole number"),
            (r#"{"a":[1]}"#, "no context"),
            (r#"{"a":[1],"c":{}}"#, "no action"),
            (r#"{"a":[1,2],"p":[1],"c":{"_multi":[{}]}}"#, "2 actions, and `p` 1"),
            (r#"{"a":[1],"pdrop":1,"c":{"_multi":[{}]}}"#, "`pdrop` is 1"),
            (
                r#"{"_label_cost":1,"_label_probability":0,"_labelIndex":0,"a":[1],"c":{"_multi":[{}]}}"#,
                "probability is 0",
            ),
            (
                r#"{"_label_cost":1,"_label_probability":1.5,"_labelIndex":0,"a":[1],"c":{"_multi":[{}]}}"#,
                "is 1.5",
            ),
            (
                r#"{"_label_cost":1,"_label_probability":1,"_labelIndex":1,"a":[1],"c":{"_multi":[{}]}}"#,
                "there are 1",
            ),
            (r#"{"_label_cost":1,"_labelIndex":0,"a":[1],"c":{"_multi":[{}]}}"#, "no `_label_probability`"),
            (r#"{"_label_cost":1,"_label_probability":1,"a":[1],"c":{"_multi":[{}]}}"#, "neither"),
            (r#"{"a":[1],"c":{"U":{"x":1e60},"_multi":[{}]}}"#, "no finite"),
            (r#"{"a":[1],"c":{"U":{"_multi":[]},"_multi":[{}]}}"#, "inside of a namespace"),
            (r#"{"a":[1],"c":{"_multi":[3]}}"#, "an object of features"),
        ] {
            let found = match parse(line) {
                Ok(Line::Decision(decision)) => decision.flaw().unwrap_or_default(),
                Ok(Line::Other) => String::new(),
                Err((what, _)) => what,
            };
            assert!(found.contains(expected), "{line}: {found}");
        }
        assert_eq!(parse(r#"{"a":[1],"c":{"_multi":"#).unwrap_err().1, Some(23));
    }
}
