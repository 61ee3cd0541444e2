//! The page, and what a browser may do with it.

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

/// One file, with its script and its style.
pub(super) const TEXT: &str = include_str!("page.html");

/// The page's headers.
#[derive(Debug)]
pub(super) struct Page {
    policy: String,
}

impl Page {
    pub(super) fn new() -> Page {
        Page { policy: policy(TEXT) }
    }

    pub(super) fn headers(&self) -> [(&str, &str); 2] {
        [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", &self.policy)]
    }
}

/// Nothing but the page's own script and style, which are known by their hashes, and connections to the
/// server that it came from: neither another script, should one ever get into the page, nor another host.
/// A nonce would do as well, and each answer would have to be made with another one.
fn policy(text: &str) -> String {
    let (script, style) = (hash(text, "script"), hash(text, "style"));
    format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The source that allows what stands between the tags of that name (CSP 3, section 2.3.1).
fn hash(text: &str, name: &str) -> String {
    let behind = text.split_once(&format!("<{name}>"));
    let within = behind.and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    match within {
        Some((within, _)) => format!("'sha256-{}'", BASE64.encode(&Sha256::digest(within))),
        None => "'none'".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_has_the_hashes() {
        let policy = policy("<style></style><script>abc</script>");
        // Of the empty text and of abc, as FIPS 180-4 has them.
        for source in [
            "style-src 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=';",
            "script-src 'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=';",
        ] {
            assert!(policy.contains(source), "{policy}");
        }
    }

    #[test]
    fn the_page_has_one_script_and_one_style_and_nothing_from_elsewhere() {
        for tag in ["<script", "<style"] {
            assert_eq!(TEXT.matches(tag).count(), 1, "{tag}");
        }
        assert!(!policy(TEXT).contains("script-src 'none'") && !TEXT.contains(" style="));
        for elsewhere in ["src=\"http", "href=\"http", "@import"] {
            assert!(!TEXT.contains(elsewhere), "{elsewhere}");
        }
        // But to parts of its own drawing.
        assert_eq!(TEXT.matches("url(").count(), TEXT.matches("url(#").count());
    }

    #[test]
    fn the_page_is_small_and_makes_no_markup_of_data() {
        assert!(TEXT.len() < 40 * 1024, "{} bytes", TEXT.len());
        for parsed in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!TEXT.contains(parsed), "{parsed}");
        }
    }
}
