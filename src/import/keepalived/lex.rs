//! keepalived.conf as a tree of directives, of the lines that `source` reads: blocks in braces, words
//! and quotes.

use super::super::ledger::{Fate, Id, Ledger};
use super::super::words;
use super::source;
use super::text::{Line, Piece, Pieces, is_name};

/// No block stands deeper; what does is read as words.
const DEPTH_MAX: usize = 16;

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

/// What a file holds, and what is odd about it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) placeholders: Vec<String>,
    /// Braces that don't match.
    pub(super) unbalanced: bool,
    /// Names behind `@`, when none of them is this file's node's.
    pub(super) others: Vec<String>,
    /// Lines in a block that is opened for another node alone.
    pub(super) half: Vec<String>,
}

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Open,
    Close,
}

struct Reader<'a> {
    file: &'a str,
    ledger: &'a mut Ledger,
    tree: Tree,
    /// The blocks that are open, outermost first.
    stack: Vec<Node>,
}

/// The tree of a file; `host` is the node it belongs to.
pub(super) fn tree(file: &str, host: Option<&str>, text: &str, ledger: &mut Ledger) -> Tree {
    let read = source::read(file, host, text, ledger);
    let mut reader = Reader {
        file,
        ledger,
        tree: Tree::default(),
        stack: Vec::new(),
    };
    for line in &read.lines {
        reader.line(line);
    }
    reader.tree.unbalanced |= !reader.stack.is_empty();
    while let Some(node) = reader.stack.pop() {
        reader.add(node);
    }
    let mut tree = reader.tree;
    tree.half = read.half;
    if !read.named {
        tree.others = read.others;
    }
    tree
}

impl Reader<'_> {
    fn add(&mut self, node: Node) {
        match self.stack.last_mut() {
            Some(parent) => parent.block.get_or_insert_default().push(node),
            None => self.tree.nodes.push(node),
        }
    }

    fn line(&mut self, line: &Line) {
        if let Some(why) = &line.lost
            && split(&line.text)
                .iter()
                .all(|t| matches!(t, Token::Word(_)))
        {
            let id = self.enter(line, &line.text);
            self.ledger.mark(id, Fate::Lost, why.clone());
            return;
        }
        let tokens = split(&line.text);
        let several = tokens
            .iter()
            .filter(|t| !matches!(t, Token::Word(_)))
            .count()
            > 0;
        let mut words: Vec<String> = Vec::new();
        let deep = self.stack.len() >= DEPTH_MAX;
        for token in tokens {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open if deep => words.push("{".to_owned()),
                Token::Open => self.open(line, std::mem::take(&mut words)),
                Token::Close => {
                    self.leaf(line, std::mem::take(&mut words), several);
                    match self.stack.pop() {
                        Some(node) => self.add(node),
                        None => {
                            self.tree.unbalanced = true;
                            let id = self.enter(line, "}");
                            self.ledger.mark(id, Fate::Lost, "it closes nothing");
                        }
                    }
                }
            }
        }
        self.leaf(line, words, several);
        let bare = |text: &str| text.chars().all(|c| "{} \t\\".contains(c));
        if bare(&line.text) && !bare(&line.source) {
            // A brace behind `@node`, or a name that stands for nothing.
            let id = self.enter(line, &line.source);
            self.ledger.mark(id, Fate::NotNeeded, "");
        }
    }

    fn enter(&mut self, line: &Line, text: &str) -> Id {
        // With its `@node`, where nothing else was put in.
        let whole = !text.is_empty() && line.source.ends_with(text);
        let text = if whole { &line.source } else { text };
        let id = self
            .ledger
            .open_in(self.file, line.number, &line.source, text);
        if let Some(why) = &line.lost {
            self.ledger.mark(id, Fate::Lost, why.clone());
        }
        id
    }

    fn open(&mut self, line: &Line, words: Vec<String>) {
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
        let id = self.enter(line, &words.join(" "));
        if words.is_empty() {
            let why = "keepalived has no block without a name: write @NAME in front of each line";
            self.ledger.mark(id, Fate::Lost, why);
        }
        self.fill(id, &words);
        self.stack.push(Node {
            id,
            words,
            block: Some(Vec::new()),
        });
    }

    /// A directive without a block.
    fn leaf(&mut self, line: &Line, words: Vec<String>, several: bool) {
        if words.is_empty() {
            return;
        }
        let joined = words.join(" ");
        let id = self.enter(line, if several { &joined } else { &line.text });
        if self.fill(id, &words) {
            return;
        }
        self.add(Node {
            id,
            words,
            block: None,
        });
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

/// The tokens of a line without comment.
pub(super) fn split(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut pieces = Pieces::of(line);
    while let Some(piece) = pieces.next(quote.is_none()) {
        let c = match piece {
            Piece::Char(c) => c,
            Piece::Placeholder(text) => {
                word.get_or_insert_default().push_str(text);
                continue;
            }
        };
        match (quote, c) {
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
                let escaped = match pieces.next(false) {
                    Some(Piece::Char(c)) => c,
                    Some(Piece::Placeholder(_)) | None => '\\',
                };
                word.get_or_insert_default().push(escaped);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens
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
        // Only definitions go on behind a backslash.
        assert_eq!(shape("a # x \\\nb\n! \\\nc d \\\n e\n", None), "a;b;e;");
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
        // Without braces a name ends with a blank or the line.
        assert_eq!(
            shape("$A=10.9\n$AB=77\n$C=${A}.${AB}\nx ${C}.1 $C.1 $A\n", None),
            "x|10.9.77.1|$C.1|10.9;"
        );
        // It is put in as it stands where it is used.
        assert_eq!(
            shape("$B=10.1.${N}\n$N=3\nx ${B}.1\n$N=4\nx ${B}.1\n", None),
            "x|10.1.3.1;x|10.1.4.1;"
        );
        let mut ledger = Ledger::default();
        let tree = tree("k", None, "$IF=eth1\ninterface $IFACE\n", &mut ledger);
        assert_eq!(tree.placeholders, ["$IFACE"]);
    }

    #[test]
    fn a_definition_of_several_lines_is_put_in_with_what_is_defined_then() {
        let text =
            "$V= \\\nv v${N} { \\\n  id $N \\\n  @hi p 9 \\\n  @lo p 8 \\\n}\n$N=1\n$V\n$N=2\n$V\n";
        assert_eq!(shape(text, Some("lo")), "v|v1(id|1;p|8;);v|v2(id|2;p|8;);");
        // One in another, a comment in it, and what ends it.
        let text = "$L= \\\na.${Z} \\\n# c \\\nb.${Z}\n$M= \\\n~SEQ(Z, 1, 2) $L \\\nc\n\nx\n$M\n";
        assert_eq!(shape(text, None), "x;a.1;b.1;a.2;b.2;c;");
        let text = "$M= \\\na \\\n\nb\nq $M\n$M q\n";
        assert_eq!(shape(text, None), "b;q|a;");
        // Those that stand for one another end, too.
        assert_eq!(shape("$A=${B}\n$B=${A}\nx ${A}\ny\n", None), "y;");
        assert_eq!(shape("$A= \\\n$A \\\n$A\n$A\ny\n", None), "y;");
    }

    #[test]
    fn a_line_is_repeated_as_sequences_and_lists_say() {
        assert_eq!(
            shape("~SEQ(D,1,2) ~LST({E,F},{7,8},{9}) x ${D}.${E}.${F}\n", None),
            "x|1.7.8;x|1.9.;x|2.7.8;x|2.9.;"
        );
        assert_eq!(
            shape("$N=2\n~SEQ(A, 1, $N) @a x $A\nx ${A}\n", Some("a")),
            "x|1;x|2;x|2;"
        );
        assert_eq!(
            shape("~SEQ(A,1,2) @b x $A\nx ~SEQ(B,1,2) $B\n", Some("a")),
            ""
        );
        let many = shape("~SEQ(A, 1, 4000) ~SEQ(B, 1, 4000) x\ny\n", None);
        assert!(many.ends_with(";y;") && many.len() < 40_000);
    }

    #[test]
    fn a_block_for_another_node_needs_its_name_in_each_line() {
        let text = "@a x {\n @a y\n@a }\nz\n";
        assert_eq!(shape(text, Some("a")), "x(y;);z;");
        assert_eq!(shape(text, Some("b")), "z;");
        // Else what follows the line with the brace is lost, up to its end.
        assert_eq!(shape("@a x {\n y {\n }\n}\nz\n", Some("b")), "z;");
        let mut ledger = Ledger::default();
        let tree = tree("k", Some("b"), "@a x {\n y\n}\n", &mut ledger);
        assert_eq!(tree.half, ["k:2", "k:3"]);
        assert_eq!(tree.others, ["a"]);
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
