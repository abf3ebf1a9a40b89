//! Quality values: the weights in `Accept` and `Accept-Encoding` (RFC 9110, section 12.4.2).

/// The weight of an item without one.
pub(crate) const MAX: u16 = 1000;

/// Parses a number from 0 to 1 with up to three decimals, in thousandths. The zero before the point may be missing:
/// `HttpURLConnection` of older Java versions sends `*/*; q=.2` by default.
pub(crate) fn parse(number: &[u8]) -> Option<u16> {
    let (whole, digits) = match number {
        [whole, b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        [b'.', digits @ ..] if (1..=3).contains(&digits.len()) => (&b'0', digits),
        [whole] => (whole, &[][..]),
        _ => return None,
    };
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let mut thousandths = digit(whole)?;
    for n in 0..3 {
        thousandths = thousandths * 10 + digits.get(n).map_or(Some(0), digit)?;
    }
    (thousandths <= MAX).then_some(thousandths)
}
