//! Keys, and the orders that they give.

use crate::column::Column;
use crate::table::COLUMNS;

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Quit,
    Suspend,
    Help,
    /// Close the help.
    Back,
    Reverse,
    Sort(Column),
    /// Move down by this many rows; up if negative.
    Scroll(isize),
    Top,
    Bottom,
    /// Redraw everything.
    Redraw,
    /// Any other key.
    Other,
}

/// A page: more rows than any screen has, cut to what the screen has.
pub(crate) const PAGE: isize = isize::MAX;

/// The orders of the keys, in sequence. Rejected: termion's parser panics on a mouse report with a wrong number, and
/// pasted text may contain anything.
pub(crate) fn orders(mut typed: &[u8]) -> Vec<Order> {
    let mut orders = Vec::new();
    while let Some((&first, rest)) = typed.split_first() {
        let (order, used) = match (first, rest.first()) {
            (ESCAPE, Some(b'[' | b'O')) => sequence(rest),
            (ESCAPE, _) => (Order::Back, 0),
            _ => (key(first), 0),
        };
        orders.push(order);
        typed = rest.get(used..).unwrap_or_default();
    }
    orders
}

const ESCAPE: u8 = 0x1b;

/// The order of a named key, and the length of its sequence after Escape: parameters, then one byte that ends it.
fn sequence(bytes: &[u8]) -> (Order, usize) {
    let end = bytes.iter().skip(1).position(|byte| (0x40..=0x7e).contains(byte));
    // Cut short: the rest is not a key either.
    let end = end.map_or(bytes.len(), |at| at + 2);
    let order = match bytes.get(1..end).unwrap_or_default() {
        b"A" => Order::Scroll(-1),
        b"B" => Order::Scroll(1),
        b"5~" => Order::Scroll(-PAGE),
        b"6~" => Order::Scroll(PAGE),
        b"H" | b"1~" | b"7~" => Order::Top,
        b"F" | b"4~" | b"8~" => Order::Bottom,
        _ => Order::Other,
    };
    (order, end)
}

fn key(byte: u8) -> Order {
    match byte {
        b'q' | CTRL_C => Order::Quit,
        CTRL_Z => Order::Suspend,
        CTRL_L => Order::Redraw,
        b'?' | b'h' => Order::Help,
        b'r' => Order::Reverse,
        b'j' => Order::Scroll(1),
        b'k' => Order::Scroll(-1),
        b' ' => Order::Scroll(PAGE),
        _ => {
            let about = COLUMNS.iter().find(|about| about.key == char::from(byte));
            about.map_or(Order::Other, |about| Order::Sort(about.column))
        }
    }
}

const CTRL_C: u8 = 3;
const CTRL_L: u8 = 12;
const CTRL_Z: u8 = 26;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_sequences() {
        let all = orders(b"mr\x1b[A\x1b[B\x1b[6~\x1b[5~xq");
        let expected = [
            Order::Sort(Column::Memory),
            Order::Reverse,
            Order::Scroll(-1),
            Order::Scroll(1),
            Order::Scroll(PAGE),
            Order::Scroll(-PAGE),
            Order::Other,
            Order::Quit,
        ];
        assert_eq!(all, expected);
        assert_eq!(orders(b"\x03\x1a\x0c"), [Order::Quit, Order::Suspend, Order::Redraw]);
        assert_eq!(orders(b"\x1b"), [Order::Back]);
        assert_eq!(orders(b""), []);
    }

    /// Any bytes, cut anywhere.
    #[test]
    fn garbage() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                orders(&[0x1b, first, second]);
                orders(&[first, second, b'[']);
                orders(&[0x1b, b'[', first, second, b';', b'9', b'9', b'9', b'9', b'9', b'9', b'M']);
                // A key after the sequence is not lost.
                assert_eq!(orders(&[0x1b, b'[', first, second, b'~', b'q']).last(), Some(&Order::Quit));
            }
        }
    }
}
