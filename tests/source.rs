//! The repository's own files, as text and as bare code.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository.
pub struct Source {
    /// Relative to the root of the workspace, with forward slashes.
    pub name: String,
    /// As it is.
    pub text: String,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    server.parent().expect("the program's crate lies in the workspace").to_path_buf()
}

/// Every text file of the repository, built and fetched things aside, ordered by name.
pub fn all() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), &root(), &mut found);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(found.len() > 100, "the workspace was not found: {} files", found.len());
    found
}

fn collect(root: &Path, dir: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        // Cargo marks its target directory, whatever it is called; Python environments say so too.
        let built = path.join("CACHEDIR.TAG").exists() || path.join("pyvenv.cfg").exists();
        if path.is_dir() && !built && !["target", ".git", "__pycache__"].contains(&name) {
            collect(root, &path, found);
        }
        if path.is_file() && is_text(&path) {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            found.push(Source { name, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

fn is_text(path: &Path) -> bool {
    let extension = path.extension().and_then(|text| text.to_str()).unwrap_or_default();
    let named = ["rs", "proto", "py", "md", "toml", "txt", "sh", "yml"].contains(&extension);
    named || path.ends_with(".ci/run")
}

impl Source {
    /// The extension of its name.
    pub fn extension(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    /// Whether all of it is there to test the rest.
    pub fn is_test(&self) -> bool {
        let parts: Vec<&str> = self.name.split('/').collect();
        parts[..parts.len() - 1].contains(&"tests") || parts.ends_with(&["tests.rs"])
    }

    /// Lines before the module of unit tests at the end.
    pub fn lines_before_tests(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let starts = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{');
        lines.windows(2).position(starts).unwrap_or(lines.len())
    }

    /// Rust without comments, strings and characters: blanks stand in their place, so that lines
    /// and columns stay.
    pub fn code(&self) -> String {
        blanked(&self.text)
    }

    /// [`Source::code`] without the module of unit tests at the end.
    pub fn code_before_tests(&self) -> String {
        let count = self.lines_before_tests();
        self.code().lines().take(count).map(|line| format!("{line}\n")).collect()
    }
}

fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = end_of_blank(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        }
        for c in &chars[at..end.max(at)] {
            out.push(if *c == '\n' { '\n' } else { ' ' });
        }
        at = end.max(at);
    }
    out
}

/// Where the comment, string or character that starts at `at` ends; `at` if none starts there.
fn end_of_blank(chars: &[char], at: usize) -> usize {
    let starts = |text: &str| text.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let after = |from: usize, what: &str| {
        let what: Vec<char> = what.chars().collect();
        let found = chars[from..].windows(what.len()).position(|window| window == what);
        found.map_or(chars.len(), |i| from + i + what.len())
    };
    if starts("//") {
        return after(at, "\n") - 1;
    }
    if starts("/*") {
        return after(at, "*/");
    }
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if chars[at] == 'r' && (!in_word || chars[at - 1] == 'b') {
        let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
        if chars.get(at + 1 + hashes) == Some(&'"') {
            return after(at + hashes + 2, &format!("\"{}", "#".repeat(hashes)));
        }
    }
    if chars[at] == '"' {
        return end_of_quoted(chars, at + 1, '"');
    }
    // 'a' and '\n' are characters, 'a is a lifetime.
    if chars[at] == '\'' && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'')) {
        return end_of_quoted(chars, at + 1, '\'');
    }
    at
}

fn end_of_quoted(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// A function with a body or without.
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`, counted from 1.
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
    /// Arguments, `self` aside.
    pub arguments: usize,
}

/// Every function in blanked code.
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in words(code, "fn") {
        let rest = &code[at + 2..];
        let name: String = rest.trim_start().chars().take_while(|c| is_word(*c)).collect();
        if name.is_empty() {
            continue; // the type of a function
        }
        let (arguments, after) = arguments(rest);
        let end = at + 2 + end_of_body(rest, after);
        let line = code[..at].matches('\n').count() + 1;
        let lines = code[at..end].matches('\n').count() + 1;
        found.push(Function { name, line, lines, arguments });
    }
    found
}

/// Where `word` stands alone, and what follows it.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    code.match_indices(word).filter_map(move |(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        let alone = !before.ends_with(is_word) && !after.starts_with(is_word);
        alone.then_some((at, after))
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// How many arguments follow a name with or without generics, and where their list ends.
fn arguments(rest: &str) -> (usize, usize) {
    let (mut angles, mut depth, mut before) = (0, 0, ' ');
    let (mut list, mut open) = (String::new(), false);
    for (at, c) in rest.char_indices() {
        match c {
            '<' => angles += 1,
            '>' if before != '-' => angles -= 1,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if c == '(' && depth == 1 && angles == 0 {
            open = true;
        } else if open && depth == 0 {
            let is_self = |part: &str| words(part, "self").next().is_some() && !part.contains("::");
            let parts = list.split('\u{1}').map(str::trim);
            let count = parts.filter(|part| !part.is_empty() && !is_self(part)).count();
            return (count, at + 1);
        } else if open {
            list.push(if c == ',' && depth == 1 && angles == 0 { '\u{1}' } else { c });
        }
        before = c;
    }
    panic!("a function without arguments in parentheses: {}", &rest[..rest.len().min(60)]);
}

/// Where the body that starts after `from` ends, or the declaration without one.
fn end_of_body(rest: &str, from: usize) -> usize {
    let mut depth = 0;
    for (at, c) in rest[from..].char_indices() {
        match c {
            ';' if depth == 0 => return from + at,
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth -= 1;
                if depth == 0 && c == '}' {
                    return from + at;
                }
            }
            _ => {}
        }
    }
    rest.len()
}

#[test]
fn code_is_told_from_text_about_code() {
    let text = "fn a<'x, T: Fn(u8, u8) -> u8>(&self, b: &'x str, c: (u8, u8)) -> [u8; 2] {\n\
                let d = '\"'; // fn e()\n\"fn f()\\\"\"; r#\"}\"\"#; /* unsafe { */\n}\nfn g();\n";
    let code = blanked(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(!code.contains("unsafe") && !code.contains('"'), "{code}");
    let found: Vec<_> =
        functions(&code).into_iter().map(|f| (f.name, f.line, f.lines, f.arguments)).collect();
    assert_eq!(found, [("a".to_string(), 1, 4, 2), ("g".to_string(), 5, 1, 0)]);
}
