//! A list of system calls that are refused, as instructions for the kernel (classic BPF,
//! `Documentation/userspace-api/seccomp_filter.rst`). Looked up by halves: whatever runs under the list
//! pays a dozen comparisons for a call, nothing where the kernel (5.11) remembers what is always allowed.
//! Pure.

use seccompiler::sock_filter;

/// When a call is refused, by its arguments' lower 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Always.
    Always,
    /// This argument has one of these bits.
    AnyBit(u8, u32),
    /// Both of these arguments have one of these bits.
    AnyBitOfBoth((u8, u32), (u8, u32)),
    /// This argument has all of them.
    AllBits(u8, u32),
    /// It is none of these.
    NoneOf(u8, &'static [u32]),
}

/// One call that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Its number.
    pub(super) call: u32,
    /// When.
    pub(super) when: When,
    /// What the caller gets.
    pub(super) errno: u16,
}

/// A processor as seccomp names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Processor {
    /// `AUDIT_ARCH_*`.
    pub(super) audit: u32,
    /// Numbers from here on are another processor's calls in disguise (x32).
    pub(super) calls_end: Option<u32>,
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ABOVE: u16 = 0x25;
const JUMP_FROM: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
/// "No such call".
const ENOSYS: u16 = 38;

/// Offsets in `struct seccomp_data`.
const AT_CALL: u32 = 0;
const AT_PROCESSOR: u32 = 4;
const AT_ARGUMENTS: u32 = 16;

fn step(code: u16, value: u32) -> sock_filter {
    branch(code, 0, 0, value)
}

fn branch(code: u16, if_so: u8, if_not: u8, value: u32) -> sock_filter {
    sock_filter {
        code,
        jt: if_so,
        jf: if_not,
        k: value,
    }
}

/// The program that refuses these, and kills who calls as another processor.
pub(super) fn compile(refusals: &[Refusal], processor: Processor) -> Vec<sock_filter> {
    let mut program = vec![
        step(LOAD, AT_PROCESSOR),
        branch(JUMP_EQUAL, 1, 0, processor.audit),
        step(RETURN, KILL_PROCESS),
        step(LOAD, AT_CALL),
    ];
    if let Some(end) = processor.calls_end {
        program.push(branch(JUMP_FROM, 0, 1, end));
        program.push(step(RETURN, refused(ENOSYS)));
    }
    let mut sorted = refusals.to_vec();
    sorted.sort_by_key(|refusal| refusal.call);
    program.extend(tree(&spans(&sorted)));
    program
}

fn refused(errno: u16) -> u32 {
    ERRNO | u32::from(errno)
}

/// Neighbours that are refused alike.
struct Span {
    first: u32,
    last: u32,
    refusal: Refusal,
}

fn spans(sorted: &[Refusal]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for refusal in sorted {
        match spans.last_mut() {
            Some(span)
                if refusal.call == span.last + 1
                    && refusal.when == When::Always
                    && span.refusal.when == When::Always
                    && refusal.errno == span.refusal.errno =>
            {
                span.last = refusal.call;
            }
            Some(_) | None => spans.push(Span {
                first: refusal.call,
                last: refusal.call,
                refusal: *refusal,
            }),
        }
    }
    spans
}

/// With the call's number loaded: what becomes of it.
fn tree(spans: &[Span]) -> Vec<sock_filter> {
    let (lower, rest) = spans.split_at(spans.len() / 2);
    let Some((span, higher)) = rest.split_first() else {
        return vec![step(RETURN, ALLOW)];
    };
    let (leaf, lower, higher) = (leaf(span.refusal), tree(lower), tree(higher));
    let mut program = vec![
        branch(JUMP_FROM, 1, 0, span.first),
        step(JUMP, length(leaf.len() + 2)),
        branch(JUMP_ABOVE, 0, 1, span.last),
        step(JUMP, length(leaf.len() + lower.len())),
    ];
    program.extend(leaf);
    program.extend(lower);
    program.extend(higher);
    program
}

/// The list has a few hundred entries.
fn length(instructions: usize) -> u32 {
    u32::try_from(instructions).unwrap_or(u32::MAX)
}

fn leaf(refusal: Refusal) -> Vec<sock_filter> {
    let no = step(RETURN, refused(refusal.errno));
    let yes = step(RETURN, ALLOW);
    let argument = |number: u8| step(LOAD, AT_ARGUMENTS + 8 * u32::from(number));
    match refusal.when {
        When::Always => vec![no],
        When::AnyBit(number, bits) => {
            vec![argument(number), branch(JUMP_ANY_BIT, 0, 1, bits), no, yes]
        }
        When::AnyBitOfBoth((first, bits), (second, others)) => vec![
            argument(first),
            branch(JUMP_ANY_BIT, 0, 3, bits),
            argument(second),
            branch(JUMP_ANY_BIT, 0, 1, others),
            no,
            yes,
        ],
        When::AllBits(number, bits) => vec![
            argument(number),
            step(AND, bits),
            branch(JUMP_EQUAL, 0, 1, bits),
            no,
            yes,
        ],
        When::NoneOf(number, values) => {
            let mut program = vec![argument(number)];
            for value in values {
                program.push(branch(JUMP_EQUAL, 0, 1, *value));
                program.push(yes.clone());
            }
            program.push(no);
            program
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Processor = Processor {
        audit: 7,
        calls_end: Some(1000),
    };

    /// As the kernel would run it; its answer and how many steps it took.
    fn run(program: &[sock_filter], processor: u32, call: u32, arguments: &[u32]) -> (u32, usize) {
        let (mut at, mut held, mut steps) = (0, 0, 0);
        loop {
            let now = &program[at];
            steps += 1;
            let skip = |taken: bool| usize::from(if taken { now.jt } else { now.jf });
            at += 1;
            match now.code {
                LOAD => {
                    held = match now.k {
                        AT_CALL => call,
                        AT_PROCESSOR => processor,
                        offset => arguments[(offset as usize - 16) / 8],
                    }
                }
                AND => held &= now.k,
                JUMP => at += now.k as usize,
                JUMP_EQUAL => at += skip(held == now.k),
                JUMP_ABOVE => at += skip(held > now.k),
                JUMP_FROM => at += skip(held >= now.k),
                JUMP_ANY_BIT => at += skip(held & now.k != 0),
                RETURN => return (now.k, steps),
                other => panic!("{other:#x}"),
            }
        }
    }

    fn always(call: u32) -> Refusal {
        Refusal {
            call,
            when: When::Always,
            errno: 1,
        }
    }

    #[test]
    fn exactly_the_calls_of_the_list_are_refused_and_the_way_is_short() {
        let calls = [9, 3, 4, 5, 20, 600, 601, 999];
        let list: Vec<Refusal> = calls.map(always).to_vec();
        let program = compile(&list, HERE);
        for call in 0..1000 {
            let (answer, steps) = run(&program, 7, call, &[]);
            let expected = if calls.contains(&call) {
                0x0005_0001
            } else {
                0x7fff_0000
            };
            assert_eq!(answer, expected, "{call}");
            assert!(steps <= 16, "{call}: {steps}");
        }
        assert_eq!(run(&compile(&[], HERE), 7, 3, &[]).0, 0x7fff_0000);
    }

    #[test]
    fn another_processor_is_killed_and_its_calls_in_disguise_are_not_there() {
        let program = compile(&[always(1)], HERE);
        assert_eq!(run(&program, 8, 2, &[]).0, 0x8000_0000);
        assert_eq!(run(&program, 7, 1000, &[]).0, 0x0005_0026);
        assert_eq!(run(&program, 7, u32::MAX, &[]).0, 0x0005_0026);
    }

    #[test]
    fn arguments_decide_where_they_are_to() {
        let with = |call, when| Refusal {
            when,
            errno: 97,
            ..always(call)
        };
        let list = [
            with(1, When::AnyBit(0, 0b0110)),
            with(2, When::AllBits(2, 0b0110)),
            with(3, When::NoneOf(1, &[5, 16])),
            always(4),
            with(5, When::AnyBitOfBoth((1, 0b1100), (2, 0b0011))),
        ];
        let program = compile(&list, HERE);
        let is_refused = |call, arguments: &[u32]| {
            let (answer, _) = run(&program, 7, call, arguments);
            assert!(
                answer == 0x7fff_0000 || answer == 0x0005_0061,
                "{answer:#x}"
            );
            answer != 0x7fff_0000
        };
        assert!(is_refused(1, &[0b0100]) && is_refused(1, &[0b1010]) && !is_refused(1, &[0b1001]));
        assert!(is_refused(2, &[0, 0, 0b0111]) && !is_refused(2, &[6, 6, 0b0101]));
        assert!(is_refused(3, &[5, 6]) && !is_refused(3, &[0, 5]) && !is_refused(3, &[0, 16]));
        assert!(is_refused(5, &[0, 0b1000, 0b0001]) && is_refused(5, &[0, 0b1111, 0b0111]));
        assert!(!is_refused(5, &[0, 0b1000, 0b0100]) && !is_refused(5, &[0, 0b0011, 0b0011]));
    }
}
