//! Limits on the length of functions, files, inline tests and lines.

use super::*;

fn check_function_lines(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for at in places(&source.code, "fn") {
        let named =
            source.code[at + 2..].trim_start().starts_with(|c: char| c.is_alphabetic() || c == '_');
        let end = block_end(&source.code, at).filter(|_| named && !source.is_test(at));
        let lines = end.map_or(0, |end| source.line(end) - source.line(at) + 1);
        if lines > FUNCTION_LINES_MAX {
            let rule = format!("a function of {lines} lines; {FUNCTION_LINES_MAX} at most");
            findings.push(source.finding(source.line(at), rule));
        }
    }
    findings
}

#[test]
fn functions_are_short() {
    let long = |n: usize| format!("fn f(x: [u8; 4]) -> u8 {{\n{}}}\n", "    g();\n".repeat(n));
    let traits =
        format!("trait T {{\n    fn f(&self);\n{}}}\n", "    const A: u8 = 0;\n".repeat(90));
    let bad = [("src/node.rs", long(69))];
    let good = [("src/node.rs", long(68)), ("src/node.rs", traits), ("src/a_tests.rs", long(99))];
    enforce(check_function_lines, &borrowed(&bad), &borrowed(&good));
}

fn borrowed<'a>(samples: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    samples.iter().map(|(path, text)| (*path, text.as_str())).collect()
}

fn check_file_lines(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let tests = source.test_lines.iter().take(lines).filter(|test| **test).count();
    let rule = format!("{} lines without tests; {FILE_LINES_MAX} at most", lines - tests);
    if lines - tests > FILE_LINES_MAX { vec![source.finding(0, rule)] } else { Vec::new() }
}

#[test]
fn files_are_short() {
    let code = |n: usize| "const A: u8 = 0;\n".repeat(n);
    let tested = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", code(400), code(50));
    let bad = [("src/node.rs", code(401))];
    enforce(check_file_lines, &borrowed(&bad), &borrowed(&[("src/node.rs", tested)]));
}

fn check_inline_tests(source: &Source) -> Vec<String> {
    let long = |(first, last): &(usize, usize)| last - first + 1 > INLINE_TEST_LINES_MAX;
    let rule = "more than 100 lines of tests go to a sibling file (#[path = \"..._tests.rs\"])";
    let spans = test_spans(&source.code);
    spans.iter().filter(|span| long(span)).map(|span| source.finding(span.0, rule)).collect()
}

#[test]
fn long_tests_have_a_file_of_their_own() {
    let inline = |n| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // x\n".repeat(n));
    let (bad, good) = ([("src/node.rs", inline(98))], [("src/node.rs", inline(97))]);
    enforce(check_inline_tests, &borrowed(&bad), &borrowed(&good));
}

fn check_columns(source: &Source) -> Vec<String> {
    let wide = |line: &str| line.chars().count() > LINE_COLUMNS_MAX;
    let lines = source.text.lines().enumerate().filter(|(_, line)| wide(line));
    lines.map(|(number, _)| source.finding(number, "more than 100 columns")).collect()
}

#[test]
fn lines_fit_in_100_columns() {
    let (bad, good) = (format!("// {}", "é".repeat(98)), format!("// {}", "é".repeat(97)));
    enforce(check_columns, &[("src/node.rs", &bad)], &[("src/node.rs", &good)]);
}
