//! keepalived.conf as a tree of directives: blocks in braces, quotes, comments with `!` and `#`,
//! continued lines, `$NAME=value`, and `@node` in front of what holds for one node alone.

use super::super::ledger::{Fate, Id, Ledger};
use super::super::words;

/// No block stands deeper; what does is read as words.
const DEPTH_MAX: usize = 16;
/// No definition is named by a definition by a definition for longer.
const NESTED_MAX: usize = 8;

/// One directive, with a block or without.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) id: Id,
    pub(super) words: Vec<String>,
    /// What stands between its braces.
    pub(super) block: Option<Vec<Self>>,
}

impl Node {
    /// The word at `index`, or nothing at all.
    pub(super) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// What stands in its block; nothing without one.
    pub(super) fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// What a file holds, and the placeholders in it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) placeholders: Vec<String>,
    /// Braces that don't match.
    pub(super) unbalanced: bool,
}

enum Token {
    Word(String),
    Open,
    Close,
}

struct Reader<'a> {
    file: &'a str,
    /// This node's name, for `@name`.
    host: Option<&'a str>,
    ledger: &'a mut Ledger,
    tree: Tree,
    /// The blocks that are open, outermost first.
    stack: Vec<Node>,
    defined: Vec<(String, String)>,
}

/// The tree of a file; `host` is the node it belongs to.
pub(super) fn tree(file: &str, host: Option<&str>, text: &str, ledger: &mut Ledger) -> Tree {
    let mut reader = Reader {
        file,
        host,
        ledger,
        tree: Tree::default(),
        stack: Vec::new(),
        defined: Vec::new(),
    };
    for (line, text) in lines(text) {
        reader.line(line, &text);
    }
    reader.tree.unbalanced |= !reader.stack.is_empty();
    while let Some(node) = reader.stack.pop() {
        reader.add(node);
    }
    reader.tree
}

impl Reader<'_> {
    fn add(&mut self, node: Node) {
        match self.stack.last_mut() {
            Some(parent) => parent.block.get_or_insert_default().push(node),
            None => self.tree.nodes.push(node),
        }
    }

    fn line(&mut self, line: usize, text: &str) {
        let text = self.replaced(text);
        let (tokens, plain, _) = split(&text);
        let mut words: Vec<String> = Vec::new();
        let deep = self.stack.len() >= DEPTH_MAX;
        for token in tokens {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open if deep => words.push("{".to_owned()),
                Token::Open => self.open(line, std::mem::take(&mut words), plain),
                Token::Close => {
                    self.leaf(line, std::mem::take(&mut words), plain);
                    match self.stack.pop() {
                        Some(node) => self.add(node),
                        None => self.tree.unbalanced = true,
                    }
                }
            }
        }
        self.leaf(line, words, plain);
    }

    fn open(&mut self, line: usize, words: Vec<String>, plain: &str) {
        if words.is_empty() {
            // The brace of the line above.
            let siblings = match self.stack.last_mut() {
                Some(parent) => parent.block.get_or_insert_default(),
                None => &mut self.tree.nodes,
            };
            if siblings.last().is_some_and(|node| node.block.is_none())
                && let Some(mut node) = siblings.pop()
            {
                node.block = Some(Vec::new());
                self.stack.push(node);
                return;
            }
        }
        let head = plain.split('{').next().unwrap_or(plain).trim();
        let shown = if words::placeholder(plain).is_some() {
            plain
        } else {
            head
        };
        let id = self.ledger.open(self.file, line, shown);
        self.fill(id, &words);
        let own = words
            .first()
            .and_then(|word| word.strip_prefix('@'))
            .map(str::to_owned);
        let words = match own.and_then(|node| self.holds(&node)) {
            Some(true) => words.into_iter().skip(1).collect(),
            Some(false) | None => words,
        };
        self.stack.push(Node {
            id,
            words,
            block: Some(Vec::new()),
        });
    }

    /// A directive without a block; entered unless it is for another node.
    fn leaf(&mut self, line: usize, words: Vec<String>, plain: &str) {
        let Some(first) = words.first() else {
            return;
        };
        let inside = plain.contains(['{', '}']) && words::placeholder(plain).is_none();
        let joined = words.join(" ");
        let id = self
            .ledger
            .open(self.file, line, if inside { &joined } else { plain });
        if let Some((name, value)) = definition(plain) {
            self.defined.push((name.to_owned(), value.to_owned()));
            self.ledger
                .mark(id, Fate::NotNeeded, "put in where it is used");
            return;
        }
        let words = match first.strip_prefix('@').map(str::to_owned) {
            None => words,
            Some(node) => match self.holds(&node) {
                Some(true) => words.into_iter().skip(1).collect(),
                Some(false) => {
                    self.ledger
                        .mark(id, Fate::NotNeeded, "it holds for another node");
                    return;
                }
                None => {
                    let why = "which node is this file's? say so with --nodes NAME=ADDRESS";
                    self.ledger.mark(id, Fate::Lost, why);
                    return;
                }
            },
        };
        if self.fill(id, &words) || words.is_empty() {
            return;
        }
        self.add(Node {
            id,
            words,
            block: None,
        });
    }

    /// Whether what stands behind `@node` holds for this file's node.
    fn holds(&self, node: &str) -> Option<bool> {
        let host = self.host?;
        Some(match node.strip_prefix('^') {
            Some(other) => other != host,
            None => node == host,
        })
    }

    /// Whether the words hold a placeholder, which is entered then.
    fn fill(&mut self, id: Id, words: &[String]) -> bool {
        let joined = words.join(" ");
        let found = words::placeholder(&joined).or_else(|| undefined(words));
        let Some(placeholder) = found else {
            return false;
        };
        let why = format!("`{placeholder}` is still to be filled in");
        self.ledger.mark(id, Fate::Lost, why);
        self.tree.placeholders.push(placeholder.to_owned());
        true
    }

    /// The line with defined names replaced.
    fn replaced(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // A value may name what was defined before it.
        for _ in 0..NESTED_MAX {
            if !text.contains('$') || definition(text.trim()).is_some() || text.len() > 4_096 {
                break;
            }
            text = self.once(&text);
        }
        text
    }

    /// The line with each name replaced once.
    fn once(&self, text: &str) -> String {
        let mut made = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            made.push_str(before);
            let braced = after.strip_prefix('{');
            let name = braced.unwrap_or(after);
            let len = name.bytes().take_while(|b| is_name(*b)).count();
            let (name, behind) = name.split_at(len);
            let behind = match braced {
                Some(_) => behind.strip_prefix('}'),
                None => Some(behind),
            };
            let known = self.defined.iter().rfind(|(other, _)| other == name);
            match (known, behind) {
                (Some((_, value)), Some(behind)) => {
                    made.push_str(value);
                    rest = behind;
                }
                _ => {
                    made.push('$');
                    rest = after;
                }
            }
        }
        made.push_str(rest);
        made
    }
}

fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

/// A name that nobody defined, where a command for a shell can't stand.
fn undefined(words: &[String]) -> Option<&str> {
    let first = words.first().map_or("", String::as_str);
    if first == "script" || first.starts_with("notify") {
        return None;
    }
    let is_bare = |word: &&String| {
        let name = word.strip_prefix('$').unwrap_or("");
        !name.is_empty() && name.bytes().all(is_name)
    };
    words.iter().find(is_bare).map(String::as_str)
}

/// `$NAME=value`.
fn definition(plain: &str) -> Option<(&str, &str)> {
    let (name, value) = plain.strip_prefix('$')?.split_once('=')?;
    (!name.is_empty() && name.bytes().all(is_name)).then_some((name, value.trim()))
}

/// Lines with their numbers; one that ends with a backslash goes on in the next.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let (start, mut whole) = open.take().unwrap_or((number, String::new()));
        // A comment ends with its line, whatever stands last in it.
        match line
            .trim_end()
            .strip_suffix('\\')
            .filter(|_| !split(line).2)
        {
            Some(part) => {
                whole.push_str(part);
                open = Some((start, whole));
            }
            None => {
                whole.push_str(line);
                found.push((start, whole));
            }
        }
    }
    found.extend(open);
    found
}

/// The tokens of a line, the line without its comment, and whether it has one.
fn split(line: &str) -> (Vec<Token>, &str, bool) {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.char_indices();
    let mut end = line.len();
    while let Some((at, c)) = chars.next() {
        let rest = line.get(at..).unwrap_or("");
        if quote.is_none() {
            let closed = [("{{", "}}"), ("{%", "%}"), ("${", "}")]
                .iter()
                .find(|(open, _)| rest.starts_with(open))
                .and_then(|(_, close)| Some(rest.find(close)? + close.len()));
            if let Some(len) = closed {
                word.get_or_insert_default()
                    .push_str(rest.get(..len).unwrap_or(""));
                chars = line.char_indices();
                chars
                    .by_ref()
                    .take_while(|(other, _)| other + 1 < at + len)
                    .for_each(drop);
                continue;
            }
        }
        match (quote, c) {
            (None, '#' | '!') => {
                end = at;
                break;
            }
            (None, '{' | '}') => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(if c == '{' { Token::Open } else { Token::Close });
            }
            (None, c) if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '\\') => {
                let escaped = chars.next().map_or('\\', |(_, c)| c);
                word.get_or_insert_default().push(escaped);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    let plain = line.get(..end).unwrap_or(line).trim();
    (tokens, plain, end < line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str, host: Option<&str>) -> String {
        fn show(nodes: &[Node], text: &mut String) {
            for node in nodes {
                text.push_str(&node.words.join("|"));
                if let Some(block) = &node.block {
                    text.push('(');
                    show(block, text);
                    text.push(')');
                }
                text.push(';');
            }
        }
        let mut ledger = Ledger::default();
        let tree = tree("k.conf", host, text, &mut ledger);
        let mut shown = String::new();
        show(&tree.nodes, &mut shown);
        if tree.unbalanced {
            shown.push_str("unbalanced");
        }
        shown
    }

    #[test]
    fn blocks_quotes_and_comments_are_keepalived_s() {
        let text = "! a comment\nvrrp_script chk # why\n{\n  script \"killall -0 haproxy\" ! x\n}\nunicast_peer { 10.0.0.2 }\n";
        assert_eq!(
            shape(text, None),
            "vrrp_script|chk(script|killall -0 haproxy;);unicast_peer(10.0.0.2;);"
        );
        assert_eq!(shape("a {\n b\n", None), "a(b;);unbalanced");
        assert_eq!(shape("}\na\n", None), "a;unbalanced");
        assert_eq!(shape("a # x \\\nb\n! \\\nc d \\\n e\n", None), "a;b;c|d|e;");
    }

    #[test]
    fn what_holds_for_another_node_is_left_out() {
        let text = "x {\n @main priority 99\n @backup priority 49\n @^main nopreempt\n}\n";
        assert_eq!(shape(text, Some("main")), "x(priority|99;);");
        assert_eq!(shape(text, Some("backup")), "x(priority|49;nopreempt;);");
        assert_eq!(shape(text, None), "x();");
        let text = "x {\n @main y {\n  z\n }\n}\n";
        assert_eq!(shape(text, Some("main")), "x(y(z;););");
    }

    #[test]
    fn a_definition_is_put_in_where_it_is_used() {
        assert_eq!(
            shape("$IF=eth1\ninterface $IF\ninterface ${IF}\n", None),
            "interface|eth1;interface|eth1;"
        );
        assert_eq!(
            shape("$A=10.9\n$AB=77\n$C=${A}.$AB\nx $C.1_$A$AB\n", None),
            "x|10.9.77.1_10.977;"
        );
        let mut ledger = Ledger::default();
        let tree = tree("k", None, "$IF=eth1\ninterface $IFACE\n", &mut ledger);
        assert_eq!(tree.placeholders, ["$IFACE"]);
    }

    #[test]
    fn a_placeholder_is_one_word_and_no_block() {
        let mut ledger = Ledger::default();
        let tree = tree(
            "k",
            None,
            "priority {{ a b }}\nstate ${STATE}\n",
            &mut ledger,
        );
        assert_eq!(tree.placeholders, ["{{ a b }}", "${STATE}"]);
        assert!(tree.nodes.is_empty());
    }
}
