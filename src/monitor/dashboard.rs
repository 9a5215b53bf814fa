//! The dashboard's page and its files: hand-written, part of the program, from no other host.
//!
//! They are for everybody who reaches the address; what the page shows needs the administrators' token,
//! where there is one. The policy that goes with them forbids inline scripts and styles, other hosts,
//! frames and forms, and has the browser refuse to make elements of text (H1).

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};

use super::answer::Problem;
use crate::http::exchange::{Field, Request, Response};

/// A file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    body: &'static [u8],
}

macro_rules! file {
    ($path:literal, $content_type:literal, $file:literal) => {
        File {
            path: $path,
            content_type: $content_type,
            body: include_bytes!(concat!("dashboard/", $file)),
        }
    };
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

static FILES: [File; 8] = [
    file!("/dashboard/", "text/html; charset=utf-8", "index.html"),
    file!(
        "/dashboard/style.css",
        "text/css; charset=utf-8",
        "style.css"
    ),
    file!("/dashboard/icon.svg", "image/svg+xml", "icon.svg"),
    File {
        content_type: SCRIPT,
        ..file!("/dashboard/app.js", "", "app.js")
    },
    File {
        content_type: SCRIPT,
        ..file!("/dashboard/charts.js", "", "charts.js")
    },
    File {
        content_type: SCRIPT,
        ..file!("/dashboard/format.js", "", "format.js")
    },
    File {
        content_type: SCRIPT,
        ..file!("/dashboard/inspector.js", "", "inspector.js")
    },
    File {
        content_type: SCRIPT,
        ..file!("/dashboard/panels.js", "", "panels.js")
    },
];

/// What identifies each file's content, in the order of [`FILES`].
static TAGS: LazyLock<[String; FILES.len()]> = LazyLock::new(|| {
    FILES.each_ref().map(|file| {
        let hash = digest(&SHA256, file.body);
        let hex: String = hash.as_ref()[..12]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("\"{hex}\"")
    })
});

/// What the page may do: speak to where it came from, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// Whether a path is the page's.
pub(super) fn is_at(path: &str) -> bool {
    path == "/" || path == "/dashboard" || path.starts_with("/dashboard/")
}

/// Answers a request for a path [`is_at`] knows. Browsers ask again each time, and are told that nothing
/// has changed.
///
/// # Errors
/// 404, 405.
pub(super) fn respond(request: &Request<'_>, response: &mut Response<'_>) -> Result<(), Problem> {
    if !["GET", "HEAD"].contains(&request.method()) {
        return Err(Problem {
            allow: Some("GET, HEAD"),
            ..Problem::new(405, "this method changes or reads nothing here")
        });
    }
    let path = request.path();
    if ["/", "/dashboard"].contains(&path) {
        let fields = [
            (Field::Location, "/dashboard/"),
            (Field::CacheControl, "no-store"),
        ];
        response.send(302, &fields, "", b"");
        return Ok(());
    }
    let found = FILES
        .iter()
        .zip(TAGS.iter())
        .find(|(file, _)| file.path == path);
    let (file, tag) = found.ok_or_else(|| Problem::new(404, "there is nothing here"))?;
    let fields = [
        (Field::CacheControl, "no-cache"),
        (Field::ETag, tag.as_str()),
        (Field::ContentSecurityPolicy, POLICY),
        (Field::ReferrerPolicy, "no-referrer"),
        (Field::XContentTypeOptions, "nosniff"),
    ];
    let is_known = request.headers("if-none-match").any(|tags| {
        let mut tags = tags.split(',').map(str::trim);
        tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    });
    if is_known {
        response.send(304, &fields, "", b"");
    } else {
        response.send(200, &fields, file.content_type, file.body);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H1: nothing in the page makes elements of text, and nothing comes from elsewhere.
    #[test]
    fn h1_the_files_keep_to_text_nodes_and_to_their_own_host() {
        for file in &FILES {
            let text = std::str::from_utf8(file.body).unwrap();
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
                "DOMParser",
                "createContextualFragment",
                "javascript:",
                "srcdoc",
            ] {
                assert!(!text.contains(word), "{}: {word}", file.path);
            }
            for (at, _) in text.match_indices("://") {
                let host = &text[at..text.len().min(at + 20)];
                assert!(host.starts_with("://www.w3.org/"), "{}: {host}", file.path);
            }
            if file.path == "/dashboard/" {
                for word in [" style=", "<style", " onclick", " onload", "<script>"] {
                    assert!(!text.contains(word), "{word}");
                }
            }
        }
    }

    #[test]
    fn every_file_the_page_asks_for_is_there() {
        let text = |path: &str| {
            let file = FILES.iter().find(|file| file.path == path).unwrap();
            std::str::from_utf8(file.body).unwrap()
        };
        let mut asked = Vec::new();
        for part in text("/dashboard/").split(['"', '\'']) {
            if [".css", ".js", ".svg"]
                .iter()
                .any(|end| part.ends_with(end))
            {
                asked.push(format!("/dashboard/{part}"));
            }
        }
        for file in FILES.iter().filter(|file| file.path.ends_with(".js")) {
            let imports = text(file.path).split("from './").skip(1);
            asked.extend(
                imports.map(|rest| format!("/dashboard/{}", rest.split('\'').next().unwrap())),
            );
        }
        assert!(asked.len() > 8);
        for path in &asked {
            assert!(FILES.iter().any(|file| file.path == path), "{path}");
        }
        for file in &FILES[1..] {
            assert!(asked.iter().any(|path| path == file.path), "{}", file.path);
        }
    }
}
