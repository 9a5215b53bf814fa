//! Days begin and end, clocks jump, and files are read back or refused.

use proptest::prelude::*;

use super::*;

const DAY: u64 = 86_400;
/// 2025-11-10T00:00:00Z.
const MONDAY: u64 = 1_762_732_800;

fn flow(opened: u64) -> Flow {
    let mut flow = Flow {
        opened,
        traffic: Traffic {
            messages_received: 1,
            bytes_received: 10,
            messages_sent: 2,
            bytes_sent: 20,
        },
        ..Flow::default()
    };
    flow.closed[0] = opened;
    flow.refused[0] = 1;
    flow
}

fn durations(values: &[u64]) -> Histogram {
    let mut histogram = Histogram::new(Measure::ConnectionDuration.scale());
    values.iter().for_each(|&value| histogram.record(value));
    histogram
}

fn date(moment: u64) -> Date {
    Date::of(moment)
}

#[test]
fn a_day_counts_everything_that_arrives_on_it() {
    let mut daily = Daily::new(MONDAY);
    daily.add(MONDAY + 5, &flow(3), &durations(&[1_000, 2_000, 6_000]), 7);
    daily.add(MONDAY + 6, &flow(2), &durations(&[]), 4);
    let (today, day) = daily.today();
    assert_eq!(
        (today.to_string().as_str(), day.opened, day.peak),
        ("2025-11-10", 5, 7)
    );
    assert_eq!(day.closed, BTreeMap::from([("peer_closed".to_owned(), 5)]));
    assert_eq!(
        day.refused,
        BTreeMap::from([("accept/connections".to_owned(), 2)])
    );
    assert_eq!(
        (day.traffic.messages_sent, day.traffic.bytes_received),
        (4, 20)
    );
    assert_eq!(
        (day.ended, day.duration_mean_ms(), day.quantiles_of),
        (3, Some(3_000), 3)
    );
    assert!(
        (1_980..=2_020).contains(&day.duration_p50_ms),
        "{}",
        day.duration_p50_ms
    );
    assert!(
        (5_940..=6_060).contains(&day.duration_p99_ms),
        "{}",
        day.duration_p99_ms
    );
}

#[test]
fn at_midnight_a_new_day_begins_with_those_who_are_there() {
    let mut daily = Daily::new(MONDAY + DAY - 1);
    daily.add(MONDAY + DAY - 1, &flow(9), &durations(&[5]), 9);
    daily.observe(MONDAY + DAY, 8);
    let (today, day) = daily.today();
    assert_eq!((today, day.opened, day.peak), (date(MONDAY + DAY), 0, 8));
    assert_eq!(day.duration_mean_ms(), None);
    let days: Vec<_> = daily.days().map(|(date, day)| (date, day.opened)).collect();
    assert_eq!(days, [(date(MONDAY + DAY), 0), (date(MONDAY), 9)]);
}

#[test]
fn x17_a_clock_that_steps_back_over_midnight_goes_on_with_the_day_before() {
    let mut daily = Daily::new(MONDAY);
    daily.add(MONDAY, &flow(1), &durations(&[100]), 1);
    daily.add(MONDAY + DAY, &flow(2), &durations(&[200]), 2);
    daily.add(MONDAY + DAY - 1, &flow(4), &durations(&[300, 300]), 3);
    daily.add(MONDAY + DAY + 1, &flow(8), &durations(&[400]), 4);
    let days: Vec<_> = daily
        .days()
        .map(|(_, day)| (day.opened, day.ended, day.quantiles_of))
        .collect();
    assert_eq!(days, [(10, 2, 2), (5, 3, 3)]);
}

#[test]
fn x17_a_clock_that_leaps_far_and_returns_loses_no_count_and_says_what_quantiles_rest_on() {
    let mut daily = Daily::new(MONDAY);
    daily.add(MONDAY, &flow(1), &durations(&[100, 100, 100]), 1);
    daily.add(MONDAY + 900 * DAY, &flow(2), &durations(&[200]), 1);
    daily.add(MONDAY + 901 * DAY, &flow(4), &durations(&[200]), 1);
    // The distribution of the first day has been given up by now.
    daily.add(MONDAY + 60, &flow(8), &durations(&[9_000]), 1);
    assert_eq!(daily.days().map(|(_, day)| day.opened).sum::<u64>(), 15);
    let (_, day) = daily.today();
    assert_eq!((day.opened, day.ended, day.duration_sum_ms), (9, 4, 9_300));
    assert_eq!(
        (day.quantiles_of, day.duration_p99_ms),
        (3, 100),
        "those of the larger part"
    );
}

#[test]
fn days_are_bounded_and_today_never_goes() {
    let mut daily = Daily::new(MONDAY);
    for number in 0..500 {
        daily.add(MONDAY + number * DAY, &flow(1), &durations(&[1]), 1);
    }
    assert_eq!(daily.days().count(), DAYS_MAX);
    assert_eq!(daily.days().last().unwrap().0, date(MONDAY + 100 * DAY));
    daily.add(MONDAY, &flow(1), &durations(&[1]), 1);
    assert_eq!(
        (daily.days().count(), daily.today().0),
        (DAYS_MAX, date(MONDAY))
    );
    assert!(daily.durations.len() <= DISTRIBUTIONS_KEPT);
}

#[test]
fn messages_per_minute_are_those_of_the_current_minute() {
    let mut daily = Daily::new(MONDAY);
    daily.add(MONDAY + 59, &flow(0), &durations(&[]), 0);
    daily.add(MONDAY + 60, &flow(0), &durations(&[]), 0);
    daily.add(MONDAY + 119, &flow(0), &durations(&[]), 0);
    assert_eq!(daily.messages_per_minute(MONDAY + 119), 4);
    assert_eq!(daily.messages_per_minute(MONDAY + 120), 0);
    daily.observe(MONDAY, 0);
    assert_eq!(
        daily.messages_per_minute(MONDAY),
        0,
        "a clock that jumped back begins anew"
    );
}

fn two_days() -> Daily {
    let mut daily = Daily::new(MONDAY);
    daily.add(MONDAY, &flow(3), &durations(&[7, 50_000, 86_400_000]), 3);
    daily.add(MONDAY + DAY, &flow(5), &durations(&[1_000]), 6);
    daily
}

#[test]
fn n19_a_restart_goes_on_where_the_file_ends() {
    let mut before = two_days();
    let mut after = Daily::from_text(&before.to_text(), MONDAY + DAY + 30).unwrap();
    assert_eq!(after.to_text(), before.to_text());
    for daily in [&mut before, &mut after] {
        daily.add(MONDAY + DAY + 60, &flow(1), &durations(&[2_000, 3_000]), 9);
    }
    assert_eq!(after, before);
    let later = Daily::from_text(&before.to_text(), MONDAY + 9 * DAY).unwrap();
    assert_eq!((later.days().count(), later.today().1.opened), (3, 0));
}

#[test]
fn a_damaged_file_says_what_is_wrong_with_it() {
    let text = two_days().to_text();
    let (head, body) = text.split_once('\n').unwrap();
    let value = |place: &str, expected| DailyFileError::Value {
        place: place.to_owned(),
        expected,
    };
    let vouched = |body: &str| {
        let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
        let sha256: String = sha256
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!(
            "{{\"format\":\"tidegate daily statistics\",\"version\":1,\"bytes\":{},\"sha256\":\"{sha256}\"}}\n{body}\n",
            body.len()
        )
    };
    let length = body.trim_end().len() as u64;
    let cases = [
        ("empty", String::new(), DailyFileError::NotDailyStatistics),
        (
            "another file",
            "{}\n{}\n".to_owned(),
            DailyFileError::NotDailyStatistics,
        ),
        (
            "torn head",
            head[..20].to_owned(),
            DailyFileError::NotDailyStatistics,
        ),
        (
            "newer",
            text.replace("\"version\":1", "\"version\":2"),
            DailyFileError::Version { found: 2 },
        ),
        (
            "torn",
            text[..text.len() - 10].to_owned(),
            DailyFileError::Length {
                expected: length,
                found: length - 9,
            },
        ),
        (
            "head only",
            head.to_owned(),
            DailyFileError::Length {
                expected: length,
                found: 0,
            },
        ),
        (
            "flipped",
            text.replace("\"opened\":5", "\"opened\":6"),
            DailyFileError::Checksum,
        ),
        ("no JSON", vouched("{]"), value("days", "JSON")),
        ("no days", vouched("{}"), value("days", "an object")),
        (
            "no day",
            vouched("{\"days\":{\"2025-13-01\":{}},\"durations\":{}}"),
            value("2025-13-01: opened", "a whole number"),
        ),
        (
            "no number",
            vouched(&body.trim_end().replace("\"opened\":5", "\"opened\":\"5\"")),
            value("2025-11-11: opened", "a whole number"),
        ),
        (
            "no count",
            vouched(
                &body
                    .trim_end()
                    .replace("\"peer_closed\":5", "\"peer_closed\":-5"),
            ),
            value("2025-11-11: closed: peer_closed", "a whole number"),
        ),
        (
            "no pair",
            vouched(&body.trim_end().replace("[[1000,1]]", "[[1000]]")),
            value(
                "2025-11-11: recorded",
                "pairs of a duration and how often it occurred",
            ),
        ),
        (
            "hostile name",
            vouched("{\"days\":{\"\\u001b[2J\\n\":1},\"durations\":{}}"),
            value("\\u{1b}[2J\\n: opened", "a whole number"),
        ),
    ];
    for (name, text, expected) in cases {
        assert_eq!(
            Daily::from_text(&text, MONDAY).unwrap_err(),
            expected,
            "{name}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the clock does, with restarts from the file in between, every connection counts once.
    #[test]
    fn x17_sums_over_days_are_true_whatever_the_clock_does(
        steps in prop::collection::vec((0_u64..30 * DAY, 0_u64..20, any::<bool>()), 1..40),
    ) {
        let mut daily = Daily::new(MONDAY);
        let (mut opened, mut ended) = (0, 0);
        for (moment, count, is_restart) in steps {
            let wall = MONDAY + moment;
            if is_restart {
                daily = Daily::from_text(&daily.to_text(), wall).unwrap();
            }
            daily.add(wall, &flow(count), &durations(&[count, count * 1_000]), count);
            opened += count;
            ended += 2;
            let (today, day) = daily.today();
            prop_assert_eq!(today, date(wall));
            prop_assert!(day.peak >= count && day.quantiles_of <= day.ended);
        }
        prop_assert_eq!(daily.days().map(|(_, day)| day.opened).sum::<u64>(), opened);
        prop_assert_eq!(daily.days().map(|(_, day)| day.ended).sum::<u64>(), ended);
    }

    /// No text makes reading panic.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}", at in any::<prop::sample::Index>()) {
        let _ = Daily::from_text(&text, MONDAY);
        let mut bytes = two_days().to_text().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = bytes[at].wrapping_add(1) & 0x7f;
        let damaged = String::from_utf8(bytes).unwrap();
        if let Ok(daily) = Daily::from_text(&damaged, MONDAY + DAY) {
            // Nothing but the space around the two lines may change unnoticed.
            prop_assert_eq!(daily.to_text(), two_days().to_text());
        }
    }
}
