//! Which levels are taken, and which lines are lost.

use super::*;

#[test]
fn a_level_is_taken_by_its_names_and_anything_else_is_refused_with_the_cure() {
    let takes = |level: &str| directives(level).unwrap();
    assert_eq!(takes("debug"), "debug");
    assert_eq!(takes("WARNING"), "warn");
    assert_eq!(takes(" Err "), "error");
    assert_eq!(takes("none"), "off");
    assert_eq!(takes(""), DEFAULT_FILTER);
    assert_eq!(takes("warn,kvs::gossip=Warning"), "warn,kvs::gossip=warn");
    assert_eq!(takes("kvs::gossip=debug"), format!("{DEFAULT_FILTER},kvs::gossip=debug"));
    for bad in ["warnning", "verbose", "kvs::gossip", "kvs=loud", "=debug", "info,[span]=debug"] {
        let refused = directives(bad).expect_err(bad).to_string();
        assert!(refused.contains("KVS_LOG") && refused.contains("warn, error or off"), "{refused}");
    }
}

/// Fails, or takes bytes, as the test says.
#[derive(Default)]
struct Reader {
    is_gone: bool,
    read: Vec<u8>,
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.read.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lost(lines: u64) -> Vec<u8> {
    format!("{lines} lost\n").into_bytes()
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_told_of_when_writing_works_again() {
    let queue = Queue::new(Counter::default());
    let mut reader = Reader::default();
    queue.push(b"1\n".to_vec());
    queue.write_next(&mut reader, &lost);
    reader.is_gone = true;
    for line in ["2\n", "3\n", "4\n"] {
        queue.push(line.into());
        queue.write_next(&mut reader, &lost);
    }
    assert_eq!(queue.lost_total.get(), 3);
    reader.is_gone = false;
    for line in ["5\n", "6\n"] {
        queue.push(line.into());
        queue.write_next(&mut reader, &lost);
    }
    assert_eq!(String::from_utf8(reader.read).unwrap(), "1\n3 lost\n5\n6\n");
    assert_eq!(queue.lost_total.get(), 3);
}

#[test]
fn a_full_queue_loses_lines_and_never_waits() {
    let queue = Queue::new(Counter::default());
    let line = vec![b'x'; QUEUE_BYTES_MAX / 4];
    for _ in 0..6 {
        queue.push(line.clone());
    }
    assert_eq!(queue.lost_total.get(), 2);
    // nobody writes: the wait is over by itself
    queue.flush(Duration::from_millis(1));
    let mut reader = Reader::default();
    for _ in 0..4 {
        queue.write_next(&mut reader, &lost);
    }
    assert_eq!(reader.read.len(), 4 * line.len() + lost(2).len());
    assert!(reader.read.starts_with(b"2 lost\n"));
}

#[test]
fn the_line_about_lost_lines_has_the_format_of_the_log() {
    let text = String::from_utf8(notice(LogFormat::Text, false, 7)).unwrap();
    assert!(text.contains(" WARN ") && text.contains("lost=7") && text.ends_with('\n'), "{text}");
    let json = notice(LogFormat::Json, true, 7);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["level"], &json["fields"]["lost"]), (&"WARN".into(), &7.into()));
}
