//! Requests answered as a whole.

use super::*;
use crate::hub::command::CommandError;
use crate::metrics::ApiMethod;

fn answer(shape: &Shape, pieces: &[Piece], wants_transport_errors: bool) -> (u16, String) {
    let (status, body) = whole(shape, pieces, wants_transport_errors);
    (status, String::from_utf8(body.into_owned()).unwrap())
}

#[test]
fn answers_have_the_shapes_of_the_reference() {
    use ApiMethod::{Info, Presence, Publish, Unknown};
    let offset = || Ok(Cow::Borrowed(&br#"{"offset":1}"#[..]));
    let unknown = || Err(ApiError::Hub(CommandError::UnknownChannel));
    let error = r#"{"error":{"code":102,"message":"unknown channel"}}"#;
    let one = Shape::One(Publish);
    assert_eq!(
        answer(&one, &[DONE], false),
        (200, r#"{"result":{}}"#.into())
    );
    assert_eq!(
        answer(&one, &[offset()], true),
        (200, r#"{"result":{"offset":1}}"#.into())
    );
    assert_eq!(answer(&one, &[unknown()], false), (200, error.into()));
    assert_eq!(
        answer(&one, &[unknown()], true),
        (404, r#"{"code":102,"message":"unknown channel"}"#.into())
    );
    let responses =
        r#"{"result":{"responses":[{"result":{"offset":1}},"#.to_owned() + error + "]}}";
    let pieces = [offset(), unknown()];
    assert_eq!(
        answer(&Shape::Broadcast(2), &pieces, true),
        (200, responses)
    );
    let alone = r#"{"result":{"responses":["#.to_owned() + error + "]}}";
    assert_eq!(
        answer(&Shape::Broadcast(1), &[unknown()], true),
        (200, alone)
    );
    let batch = Shape::Batch(vec![
        Shape::One(Publish),
        Shape::Broadcast(2),
        Shape::One(Unknown),
        Shape::One(Presence),
        Shape::One(Info),
    ]);
    let pieces = [offset(), DONE, unknown(), unknown(), DONE, offset()];
    let replies = [
        r#"{"replies":[{"publish":{"offset":1}},{"broadcast":{"responses":[{"result":{}},"#,
        error,
        "]}},",
        error,
        r#",{"presence":{}},{"info":{"offset":1}}]}"#,
    ];
    assert_eq!(answer(&batch, &pieces, true), (200, replies.concat()));
    assert_eq!(
        answer(&Shape::Batch(vec![]), &[], false),
        (200, r#"{"replies":[]}"#.into())
    );
}

#[test]
fn errors_have_the_statuses_of_the_reference() {
    for (error, code, status) in [
        (ApiError::INTERNAL, 100, 500),
        (ApiError::Hub(CommandError::UnknownChannel), 102, 404),
        (ApiError::PermissionDenied, 103, 403),
        (ApiError::NOT_FOUND, 104, 404),
        (ApiError::LimitExceeded, 106, 400),
        (ApiError::BAD_REQUEST, 107, 400),
        (ApiError::NOT_AVAILABLE, 108, 400),
        (ApiError::Hub(CommandError::UnrecoverablePosition), 112, 416),
    ] {
        assert_eq!((error.code(), error.status()), (code, status));
    }
}
