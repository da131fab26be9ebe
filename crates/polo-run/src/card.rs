//! The card of a method: what a newcomer must know before using it.
//!
//! Every method file holds one [`MethodCard`]; the program's registry lists them all. `polo methods` prints
//! [`table`], `polo explain SLUG` prints [`explain`], and an unknown slug is answered by [`find`] with the nearest
//! known one.

use crate::problem::{Problem, Result};

/// Width that explanations are wrapped to, in characters.
pub const WIDTH: usize = 100;

/// What is known about one published method.
#[derive(Clone, Copy, Debug)]
pub struct MethodCard {
    /// Name on the command line, e.g. `dpo`.
    pub slug: &'static str,
    /// Full name, e.g. `Direct preference optimisation`.
    pub title: &'static str,
    /// Authors and title of the paper.
    pub paper: &'static str,
    /// arXiv identifier, e.g. `2305.18290`; empty where there is none.
    pub arxiv: &'static str,
    /// Year of first publication.
    pub year: u16,
    /// What the method learns from, e.g. `preference pairs`.
    pub family: &'static str,
    /// One line: what it does.
    pub summary: &'static str,
    /// The paper's central claim, which `polo reproduce` re-tests.
    pub claim: &'static str,
    /// The objective, over several lines, printed as it stands.
    pub equation: &'static str,
    /// Symbols of the equation and their meaning, with units.
    pub symbols: &'static [(&'static str, &'static str)],
    /// Metrics the method logs and how to read them, with units.
    pub metrics: &'static [(&'static str, &'static str)],
    /// When to use it.
    pub reach_for: &'static str,
    /// When not to, and what to use instead.
    pub avoid_when: &'static str,
    /// What is seen when it goes wrong, and what then helps.
    pub failure_signs: &'static [&'static str],
    /// Variants and the configuration that selects them.
    pub variants: &'static [(&'static str, &'static str)],
}

/// A configuration key for [`explain`]: key, default, allowed range (may be empty), explanation.
pub type KeyLine<'a> = (&'a str, &'a str, &'a str, &'a str);

/// The card of `slug`, or a usage problem that names the nearest slug.
pub fn find<'a>(slug: &str, cards: &'a [MethodCard]) -> Result<&'a MethodCard> {
    if let Some(card) = cards.iter().find(|card| card.slug == slug) {
        return Ok(card);
    }
    let wanted = slug.to_lowercase();
    let nearest = cards
        .iter()
        .map(|card| (strsim::jaro_winkler(&wanted, card.slug), card.slug))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.7);
    Err(Problem::usage(format!("there is no method {slug:?}")).hint(match nearest {
        Some((_, nearest)) => format!("did you mean {nearest}? `polo methods` lists all methods"),
        None => "`polo methods` lists all methods".to_string(),
    }))
}

/// All cards, one a line: slug, family, year, summary.
pub fn table(cards: &[MethodCard]) -> String {
    let width = |text: fn(&MethodCard) -> &str, title: &str| {
        cards.iter().map(|card| text(card).chars().count()).chain([title.len()]).max().unwrap_or(0)
    };
    let (slug, family) = (width(|card| card.slug, "method"), width(|card| card.family, "learns from"));
    let mut text = format!("{:slug$}  {:family$}  year  what it does\n", "method", "learns from");
    for card in cards {
        text += &format!("{:slug$}  {:family$}  {:4}  {}\n", card.slug, card.family, card.year, card.summary);
    }
    text
}

/// Everything about one method, wrapped to [`WIDTH`] as plain text. `keys` are the configuration keys of the method.
pub fn explain(card: &MethodCard, keys: &[KeyLine<'_>]) -> String {
    let mut out = Page(String::new());
    out.0 += &format!("{} - {}\n", card.slug, card.title);
    out.0 += &format!("{}\n", "=".repeat(card.slug.chars().count() + card.title.chars().count() + 3));
    out.paragraph("", card.summary);
    let arxiv = if card.arxiv.is_empty() { String::new() } else { format!(", arXiv {}", card.arxiv) };
    out.paragraph("Paper: ", &format!("{} ({}{arxiv})", card.paper.trim_end_matches('.'), card.year));
    out.paragraph("Learns from: ", card.family);
    out.paragraph("Claim: ", card.claim);
    out.heading("Objective");
    for line in card.equation.trim_matches('\n').lines() {
        out.0 += &format!("{}\n", format!("    {line}").trim_end());
    }
    out.definitions("Symbols", card.symbols);
    out.heading("Reach for it when");
    out.block("  ", "  ", card.reach_for);
    out.heading("Avoid it when");
    out.block("  ", "  ", card.avoid_when);
    out.definitions("Variants", card.variants);
    if !keys.is_empty() {
        out.heading("Configuration (set with --set key=value or in the configuration file)");
        for (key, default, range, doc) in keys {
            let range = if range.is_empty() { String::new() } else { format!(", {range}") };
            out.block("  ", "    ", &format!("{key} (default {default}{range})"));
            out.block("      ", "      ", doc);
        }
    }
    out.definitions("Metrics", card.metrics);
    if !card.failure_signs.is_empty() {
        out.heading("Signs of failure");
        for sign in card.failure_signs {
            out.block("  - ", "    ", sign);
        }
    }
    out.0
}

struct Page(String);

impl Page {
    fn heading(&mut self, title: &str) {
        self.0 += &format!("\n{title}\n");
    }

    fn paragraph(&mut self, label: &str, text: &str) {
        if !text.is_empty() {
            self.0.push('\n');
            self.block("", "", &format!("{label}{text}"));
        }
    }

    fn definitions(&mut self, title: &str, entries: &[(&str, &str)]) {
        if entries.is_empty() {
            return;
        }
        self.heading(title);
        let longest = entries.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(28);
        for (name, meaning) in entries {
            let indent = " ".repeat(longest + 4);
            self.block(&format!("  {name:longest$}  "), &indent, meaning);
        }
    }

    /// Appends `text` wrapped to [`WIDTH`]; `first` opens the first line, `later` every other one.
    fn block(&mut self, first: &str, later: &str, text: &str) {
        let mut line = first.to_string();
        let mut empty = true;
        for word in text.split_whitespace() {
            let room = line.chars().count() + usize::from(!empty) + word.chars().count();
            if !empty && room > WIDTH {
                self.0 += line.trim_end();
                self.0.push('\n');
                line = later.to_string();
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line += word;
            empty = false;
        }
        self.0 += line.trim_end();
        self.0.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: MethodCard = MethodCard {
        slug: "ipo",
        title: "Identity preference optimisation",
        paper: "Azar et al., A general theoretical paradigm to understand learning from human preferences",
        arxiv: "2310.12036",
        year: 2023,
        family: "preference pairs",
        summary: "Regresses the margin of a pair onto a fixed target.",
        claim: "With deterministic labels the policy stays near the reference, where DPO's margin runs away \
                however strong the pull towards the reference was chosen to be by its user.",
        equation: "h(w, l) = A(w) - A(l)\n\nloss = (h(w, l) - 1 / (2 beta))^2",
        symbols: &[("A(y)", "log pi(y|x) - log ref(y|x), nats"), ("beta", "pull towards the reference")],
        metrics: &[("rewards/margins", "beta times the margin of the chosen over the rejected answer, nats")],
        reach_for: "few, clean labels",
        avoid_when: "labels are noisy",
        failure_signs: &["rewards/margins far above 1/2: the learning rate is too high"],
        variants: &[],
    };

    const CARDS: [MethodCard; 3] =
        [CARD, MethodCard { slug: "dpo", ..CARD }, MethodCard { slug: "srpo", family: "pairs", ..CARD }];

    #[test]
    fn the_nearest_slug_is_offered() {
        fn check(slug: &str, expected: &str) {
            let error = find(slug, &CARDS).unwrap_err();
            assert_eq!(error.message(), format!("there is no method {slug:?}"));
            assert!(error.hint_text().unwrap().starts_with(expected), "{:?}", error.hint_text());
        }
        assert_eq!(find("dpo", &CARDS).unwrap().slug, "dpo");
        check("dppo", "did you mean dpo?");
        check("SRPO", "did you mean srpo?");
        check("squarecb", "`polo methods`");
        check("", "`polo methods`");
    }

    #[test]
    fn the_table_lines_up() {
        let text = table(&CARDS);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let column = lines[0].find("what it does").unwrap();
        assert!(lines[1..].iter().all(|line| line[column..].starts_with("Regresses")), "{text}");
    }

    #[test]
    fn an_explanation_holds_everything_within_its_width() {
        let keys = [("beta", "0.1", "> 0", "Pull towards the reference."), ("reduction", "sum", "", "How.")];
        let text = explain(&CARD, &keys);
        for expected in [
            "ipo - Identity preference optimisation\n",
            "(2023, arXiv 2310.12036)",
            "    h(w, l) = A(w) - A(l)\n\n    loss = (h(w, l) - 1 / (2 beta))^2\n",
            "  A(y)  log pi(y|x)",
            "  beta (default 0.1, > 0)\n      Pull towards the reference.\n",
            "  reduction (default sum)\n",
            "\nSigns of failure\n  - rewards/margins",
            "\nReach for it when\n  few, clean labels\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
        }
        assert!(!text.contains("Variants"));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH && line.trim_end() == line), "{text}");
        let bare = MethodCard { symbols: &[], metrics: &[], failure_signs: &[], arxiv: "", ..CARD };
        assert!(!explain(&bare, &[]).contains("arXiv"));
    }
}
