//! Chat templates: the Jinja texts of Hugging Face folders that turn a conversation into a string.
//!
//! [`crate::tokens::Tokenizer`] owns one. The environment is what transformers gives its templates: trimmed blocks,
//! `raise_exception`, `strftime_now`, loop controls, `tojson` without HTML escapes, Python's string methods, and
//! `{% generation %}` marks (ignored). A template comes with a model from elsewhere, so its work is limited.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig, value::Kwargs};
use polo_run::{Problem, Result};
use serde::Serialize;

use crate::rows::Message;

/// The template of models that come without one (base models), and of those that `polo init-model` makes:
///
/// ```text
/// {BOS}User: question
///
/// Assistant: answer{EOS}
/// ```
///
/// It needs no special tokens but the beginning and end of text, and asks for an answer with `Assistant:` without a
/// space after it, as byte-level vocabularies hold words together with the space before them.
pub const DEFAULT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
    {{ message['role'] | capitalize }}: {{ message['content'] | trim }}\
    {% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\
    {% if not loop.last or add_generation_prompt %}{{ '\\n\\n' }}{% endif %}\
    {% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

/// Steps that one rendering may take: far more than the longest conversation needs, and a fraction of a second.
const FUEL: u64 = 20_000_000;

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    /// Where it came from, for errors.
    origin: String,
}

/// The special tokens that templates may name; empty where the tokenizer has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateTokens {
    /// Beginning of text.
    pub bos: String,
    /// End of text or turn.
    pub eos: String,
    /// Padding.
    pub pad: String,
    /// Unknown.
    pub unk: String,
}

impl ChatTemplate {
    /// Compiles a template; `origin` names it in errors.
    ///
    /// # Errors
    /// A syntax error, with its line.
    pub fn new(source: impl Into<String>, origin: impl Into<String>) -> Result<Self> {
        let (source, origin) = (source.into(), origin.into());
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| problem(&origin, &error))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned("chat", without_generation_marks(&source))
            .map_err(|error| problem(&origin, &error))?;
        let mut template = Self { environment, source, origin };
        template.set_now(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()));
        Ok(template)
    }

    /// Sets what `strftime_now` takes for the present, in seconds since 1970 (UTC). A template that prints the date
    /// gives other tokens on another day: whoever resumes a run sets the time of its start.
    pub fn set_now(&mut self, seconds: u64) {
        self.environment.add_function("strftime_now", move |format: String| strftime(&format, seconds));
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation; with `add_generation_prompt` up to the point where the assistant would begin.
    ///
    /// # Errors
    /// What the template raises (roles it does not know, turns out of order), and templates that do not end.
    pub fn render(
        &self,
        messages: &[Message],
        tokens: &TemplateTokens,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let turns = messages.iter().map(|turn| {
            Value::from_pairs([("role", turn.role.as_str()), ("content", turn.content.as_str())])
        });
        let context = context! {
            messages => Value::from(turns.collect::<Vec<_>>()),
            tools => (),
            documents => (),
            bos_token => tokens.bos.as_str(),
            eos_token => tokens.eos.as_str(),
            pad_token => tokens.pad.as_str(),
            unk_token => tokens.unk.as_str(),
            add_generation_prompt => add_generation_prompt,
        };
        let render = self.environment.get_template("chat").and_then(|template| template.render(context));
        render.map_err(|error| problem(&self.origin, &error))
    }
}

fn problem(origin: &str, error: &Error) -> Problem {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let place = error.line().map_or_else(|| origin.to_owned(), |line| format!("{origin}:{line}"));
    let hint = match error.kind() {
        ErrorKind::InvalidOperation => {
            "the template itself refused the conversation: look at the order of its roles"
        }
        ErrorKind::OutOfFuel => "the template did not come to an end in a reasonable time",
        _ => "replace the template with chat_template.jinja in the model's folder",
    };
    Problem::input(format!("chat template: {detail}")).place(place).hint(hint)
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let wrong = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let indent = options.get::<Option<usize>>("indent")?.map(|width| " ".repeat(width.min(16)));
    let mut bytes = Vec::new();
    match &indent {
        Some(indent) => {
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value
                .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
                .map_err(wrong)?;
        }
        None => value
            .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, PythonFormatter))
            .map_err(wrong)?,
    }
    Ok(Value::from(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Python separates with `", "` and `": "`.
struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// `{% generation %}` marks what transformers reports as the assistant's tokens; it prints nothing. A condition that
/// always holds has the same effect on the text, white space control included.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("{%") {
        let Some((tag, remaining)) = after.split_once("%}") else { break };
        let name = tag.trim_matches(|mark: char| mark == '-' || mark == '+' || mark.is_whitespace());
        out += before;
        out += "{%";
        out += &match name {
            "generation" => tag.replace("generation", " if true "),
            "endgeneration" => tag.replace("endgeneration", " endif "),
            _ => tag.to_owned(),
        };
        out += "%}";
        rest = remaining;
    }
    out + rest
}

/// The directives of `strftime` that templates use, in English and UTC; others are copied.
fn strftime(format: &str, seconds: u64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let month_name = MONTHS[month as usize - 1];
    let day_name = DAYS[(days % 7) as usize];
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => out += &year.to_string(),
            Some('y') => out += &format!("{:02}", year % 100),
            Some('m') => out += &format!("{month:02}"),
            Some('B') => out += month_name,
            Some('b') => out += &month_name[..3],
            Some('d') => out += &format!("{day:02}"),
            Some('e') => out += &format!("{day:2}"),
            Some('A') => out += day_name,
            Some('a') => out += &day_name[..3],
            Some('H') => out += &format!("{:02}", second / 3600),
            Some('M') => out += &format!("{:02}", second / 60 % 60),
            Some('S') => out += &format!("{:02}", second % 60),
            Some('F') => out += &format!("{year}-{month:02}-{day:02}"),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// Year, month and day of a day since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA_3: &str = r#"{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>

'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>

' }}{% endif %}"#;

    const QWEN: &str = r#"{%- if tools %}
    {{- '<|im_start|>system\n' }}{{- tools | tojson }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(turns=0) %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {%- set ns.turns = ns.turns + 1 %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"#;

    const MISTRAL: &str = r"{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.last and system_message is defined %}
            {{- '[INST] ' + system_message + '\n\n' + message['content'] + '[/INST]' }}
        {%- else %}
            {{- '[INST] ' + message['content'] + '[/INST]' }}
        {%- endif %}
    {%- else %}
        {%- generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration -%}
    {%- endif %}
{%- endfor %}";

    const CHATML: &str = "{% for message in messages %}\n    {% if message.role == 'tool' %}\n        {% continue %}\n    {% endif %}\n{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn chat(turns: &[(&str, &str)]) -> Vec<Message> {
        turns.iter().map(|&(role, content)| Message::new(role, content)).collect()
    }

    fn tokens() -> TemplateTokens {
        TemplateTokens { bos: "<s>".into(), eos: "</s>".into(), ..TemplateTokens::default() }
    }

    #[track_caller]
    fn check(template: &str, turns: &[(&str, &str)], ask: bool, expected: &str) {
        let template = ChatTemplate::new(template, "test").unwrap();
        assert_eq!(template.render(&chat(turns), &tokens(), ask).unwrap(), expected);
    }

    // The expected strings were produced by jinja2 with the environment that transformers sets up.
    #[test]
    fn renders_the_constructs_of_well_known_templates() {
        let hi = [("user", " Hi "), ("assistant", "Yes?")];
        check(
            LLAMA_3,
            &hi[..1],
            true,
            "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        );
        check(
            QWEN,
            &[("user", "Hi"), ("assistant", "<think>hm</think>\n\nYes?")],
            false,
            "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n",
        );
        check(MISTRAL, &hi, false, "<s>[INST]  Hi [/INST] Yes?</s>");
        check(MISTRAL, &[("system", "Be brief."), ("user", "Hi")], true, "<s>[INST] Be brief.\n\nHi[/INST]");
        check(
            CHATML,
            &[("tool", "x"), ("user", "Hi")],
            true,
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        );
        check(DEFAULT_TEMPLATE, &hi, false, "<s>User: Hi\n\nAssistant: Yes?</s>");
        check(DEFAULT_TEMPLATE, &hi[..1], true, "<s>User: Hi\n\nAssistant:");
    }

    #[test]
    fn json_is_written_as_python_does() {
        check("{{ {'a': [1, 'é<>&'], 'b': none} | tojson }}", &[], false, r#"{"a": [1, "é<>&"], "b": null}"#);
        check("{{ {'a': [1]} | tojson(indent=2) }}", &[], false, "{\n  \"a\": [\n    1\n  ]\n}");
    }

    #[test]
    fn dates_follow_the_clock_that_is_set() {
        let mut template =
            ChatTemplate::new("{{ strftime_now('%d %b %Y, %A %H:%M, %F %q%') }}", "test").unwrap();
        template.set_now(1_709_210_096);
        let rendered = template.render(&[], &tokens(), false).unwrap();
        assert_eq!(rendered, "29 Feb 2024, Thursday 12:34, 2024-02-29 %q%");
    }

    #[track_caller]
    fn check_refused(template: &str, turns: &[(&str, &str)], message: &str, place: &str) {
        let problem = ChatTemplate::new(template, "chat_template.jinja")
            .and_then(|template| template.render(&chat(turns), &tokens(), false))
            .unwrap_err();
        assert!(problem.message().contains(message), "{problem}");
        assert_eq!(problem.place_text(), Some(place));
    }

    #[test]
    fn refusals_say_why() {
        let twice = [("user", "a"), ("user", "b")];
        check_refused(MISTRAL, &twice, "roles must alternate", "chat_template.jinja:5");
        check_refused("a\n{% if %}", &[], "", "chat_template.jinja:2");
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
        check_refused(endless, &[], "fuel", "chat_template.jinja:1");
    }
}
