//! The people of the scenarios, with names, numbers, departments and answers. All are invented.
//!
//! None of their contact data can reach anyone: e-mail addresses use the reserved example domains (RFC 2606), phone numbers
//! Ofcom's ranges for drama, and URLs the `.example` domain.

use serde_json::{Value, json};

use super::prng::{below, letters, pick, random};

const GIVEN_NAMES: [&str; 24] = [
    "Ada",
    "Bram",
    "Clementine",
    "Dorian",
    "Elowen",
    "Fitz",
    "Greta",
    "Hugo",
    "Isolde",
    "Jasper",
    "Kestrel",
    "Linus",
    "Marigold",
    "Nestor",
    "Ottilie",
    "Piran",
    "Quentin",
    "Rosalind",
    "Silas",
    "Tamsin",
    "Ursula",
    "Viggo",
    "Winifred",
    "Yorick",
];

const FAMILY_NAMES: [&str; 16] = [
    "Applebatch",
    "Brindlewick",
    "Cloudesdale",
    "Dapplemere",
    "Everbright",
    "Fennimoor",
    "Gooseberry",
    "Hollowhill",
    "Inkpenny",
    "Lanternby",
    "Marrowgate",
    "Nettlefold",
    "Pepperday",
    "Quillfeather",
    "Thistlewood",
    "Umbercroft",
];

/// The departments, with ids from 1.
const DEPARTMENTS: [&str; 6] = [
    "Advice and Benefits",
    "Housing Support",
    "Family Liaison",
    "Skills and Work",
    "Pensions",
    "Community Health",
];

const LANGUAGES: [&str; 8] =
    ["Welsh", "British Sign Language", "Polish", "Urdu", "Arabic", "Ukrainian", "French", "Somali"];

const ROOMS: [&str; 8] =
    ["Harbour", "Lantern", "Orchard", "Skylark", "Meadow", "Lighthouse", "Willow", "Compass"];

const REASONS: [&str; 4] = [
    "The claimant asked for another day.",
    "The agent is unwell.",
    "It was booked twice.",
    "The matter has been settled by letter.",
];

/// Returns the claimant of the `index`th appointment, with `answered` answers.
pub(crate) fn claimant(index: u32, answered: u32) -> Value {
    let given = GIVEN_NAMES[index as usize % GIVEN_NAMES.len()];
    // Shifts the family names with each round of given names, so the first 384 names are distinct.
    let family = FAMILY_NAMES[(index as usize + index as usize / GIVEN_NAMES.len()) % FAMILY_NAMES.len()];
    let domain = pick(&["example.com", "example.org", "example.net"], index, "domain");
    json!({
        "name": format!("{given} {family}"),
        "phone_number": phone_number(index),
        "email": format!("{}.{}@{domain}", given.to_lowercase(), family.to_lowercase()),
        "date_of_birth": date(index, "birth", 1938, 66),
        "data": answers(index, answered),
    })
}

/// Returns a phone number in London, Manchester or Edinburgh, or a mobile number.
fn phone_number(index: u32) -> String {
    let range = pick(&["+442079460", "+441614960", "+441314960", "+447700900"], index, "phone");
    format!("{range}{:03}", index % 1000)
}

/// Returns a date in one of the `years` from `first`.
fn date(index: u32, purpose: &str, first: u32, years: u32) -> String {
    let days = below(years * 336, index, purpose);
    // Days 1 to 28 exist in every month.
    format!("{}-{:02}-{:02}", first + days / 336, days / 28 % 12 + 1, days % 28 + 1)
}

/// Returns answers to the first `answered` of the organisation's questions, one of each type.
fn answers(index: u32, answered: u32) -> Vec<Value> {
    // The prefix QQ is never issued.
    let insurance_number = format!("QQ{:06}C", below(1_000_000, index, "insurance number"));
    let household = (below(6, index, "household") + 1).to_string();
    let heard = pick(&["A friend", "A leaflet", "A web search"], index, "heard of us").to_owned();
    let yes = pick(&["true", "false"], index, "text messages").to_owned();
    let questions = [
        ("National Insurance number", "text", true, Some(insurance_number)),
        ("Number of people in the household", "number", true, Some(household)),
        ("Day of the last visit", "date", false, Some(date(index, "last visit", 2023, 2))),
        ("May we send text messages?", "boolean", true, Some(yes)),
        ("How did you hear of us?", "select", false, Some(heard)),
        ("Second phone number", "tel", false, Some(phone_number(index + 500))),
        ("Anything that we should know", "textarea", false, None),
    ];
    let answered = usize::try_from(answered).unwrap_or(usize::MAX);
    (1..)
        .zip(questions)
        .take(answered)
        .map(|(number, (name, kind, required, value))| {
            json!({ "id": format!("f{number}"), "name": name, "type": kind, "required": required, "value": value })
        })
        .collect()
}

/// Returns the department with this id.
pub(crate) fn department(id: u64) -> Option<Value> {
    let place = usize::try_from(id.checked_sub(1)?).ok()?;
    DEPARTMENTS.get(place).map(|name| json!({ "id": id, "name": name }))
}

/// Returns the department of the `index`th appointment.
pub(crate) fn some_department(index: u32) -> Option<Value> {
    department(random(index, "department") % DEPARTMENTS.len() as u64 + 1)
}

/// Returns the language of the interpreter.
pub(crate) fn language(index: u32) -> &'static str {
    pick(&LANGUAGES, index, "language")
}

/// Returns the reason of a cancellation.
pub(crate) fn reason(index: u32) -> &'static str {
    pick(&REASONS, index, "reason")
}

/// Returns a reference in the format of the upstream's newer appointments.
pub(crate) fn reference(index: u32) -> String {
    letters(index, "reference")
}

/// Returns a reference in the format of the upstream's documentation.
pub(crate) fn numeric_reference(index: u32) -> u32 {
    100_000_000 + below(899_000_000, index, "reference")
}

/// Returns the URL of the check-in page.
pub(crate) fn check_in_url(reference: &str) -> String {
    format!("https://sandbox.example/client-web/schedule/pre-call/summary?reference={reference}")
}

/// Returns the name and URL of the meeting room of the `index`th appointment.
pub(crate) fn room(index: u32) -> (String, String) {
    let room = pick(&ROOMS, index, "room");
    (format!("{room} {index}"), format!("https://meet.example/{room}{index}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn contact_data_reaches_nobody() {
        for index in 0..300 {
            let claimant = claimant(index, 7);
            let email = claimant["email"].as_str().unwrap();
            assert!([".com", ".org", ".net"].iter().any(|end| email.ends_with(&format!("@example{end}"))));
            let phone = claimant["phone_number"].as_str().unwrap();
            assert_eq!(phone.len(), 13, "{phone}");
            assert_eq!(claimant["data"].as_array().unwrap().len(), 7);
        }
    }

    #[test]
    fn names_are_unique() {
        let names: HashSet<_> = (0..250).map(|index| claimant(index, 0)["name"].to_string()).collect();
        assert_eq!(names.len(), 250);
    }

    #[test]
    fn department_ids_start_at_one() {
        assert_eq!(department(0), None);
        assert_eq!(department(1), Some(json!({ "id": 1, "name": "Advice and Benefits" })));
        assert_eq!(department(7), None);
    }
}
