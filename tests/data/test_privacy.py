import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sftlab.data.privacy import find_in_text, redact, redact_text
from sftlab.data.rows import RowsError
from sftlab.world import example


def kinds_in(text, **options):
    return [kind for _, _, kind in find_in_text(text, **options)]


CARDS = (  # the numbers that issuers publish for tests of shops
    "4111111111111111", "4222222222222", "378282246310005", "3782-822463-10005",
    "3056 930902 5904", "5555 5555 5555 4444", "6011-1111-1111-1117", "6304000000000000000",
)  # fmt: skip
IBANS = (  # the examples of SWIFT's registry
    "GB29NWBK60161331926819", "DE89370400440532013000", "FR1420041010050500013M02606",
    "NO9386011117947", "MT84MALT011000012345MTLCAST001S", "PL61 1090 1014 0000 0712 1981 2874",
)  # fmt: skip
AROUND = ("{}", "My number is {}.", "({})", "pay {}, please", "x:\n{}\ny")


@pytest.mark.parametrize(
    ("kind", "number"), [*(("CARD", one) for one in CARDS), *(("IBAN", one) for one in IBANS)]
)
def test_a_number_is_found_whole_and_only_with_its_checksum(kind, number):
    for form in AROUND:
        text = form.format(number)
        start = text.index(number)
        assert find_in_text(text) == [(start, start + len(number), kind)]
        assert kinds_in(text.lower()) == [kind]
    assert kind not in kinds_in(number[:-1] + ("1" if number[-1] != "1" else "2"))


@given(st.ip_addresses().map(str), st.sampled_from(AROUND))
def test_addresses_of_machines_are_found(address, form):
    assume(not re.fullmatch(r"\d{0,3}::\d{0,3}", address))
    assert "IP" in kinds_in(form.format(address))


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Write to ann.lee+x@mail.example.co.uk.", "Write to [EMAIL]."),
        ("<o'neil@example.com>, B@example.org", "<[EMAIL]>, [EMAIL]"),
        ("u=ann@example.com&x", "u=[EMAIL]&x"),
        ("münch@bücher.example and info@xn--bcher-kva.xn--p1ai", "[EMAIL] and [EMAIL]"),
        ("Call +49 30 1234567 or 030/1234567.", "Call [PHONE] or [PHONE]."),
        ("(555) 123-4567, 555-123-4567, 0612345678", "[PHONE], [PHONE], [PHONE]"),
        ("+1 (415) 555-2671 20240513", "[PHONE] 20240513"),
        ("00 33 1 23 45 67 89; +678 12345", "[PHONE]; [PHONE]"),
        ("http://192.168.0.1:80/ and 10.0.0.1.", "http://[IP]:80/ and [IP]."),
        ("2001:db8::1: up; ::ffff:1.2.3.4", "[IP]: up; [IP]"),
        ("4111 1111 1111 1111, 123", "[CARD], 123"),
        ("4111 1111 1111 1111 123", "[CARD] 123"),
        ("DE89 3704 0044 0532 0130 00 or GB82 WEST 1234 5698 7654 32", "[IBAN] or [IBAN]"),
    ],
)
def test_usual_forms_are_redacted(text, redacted):
    assert redact_text(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "In 2024-05-13 or 01.02.2024 10:30 or 12:30:45, page 1500000.",
        "x[1::2], std::vector, a@b, @name, 3.14159265358979, 0.123456789012",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "aa:bb:cc:dd:ee:ff, 1.2.3, 999.1.1.1, ISBN 0-306-40615-2",
        "DE89370400440532013001 and XX82 WEST 1234 5698 7654 32",
    ],
)
def test_other_numbers_and_signs_are_left_alone(text):
    assert find_in_text(text) == []


def test_names_are_whole_words_of_the_list_the_longest_first():
    names = ["Anna", "Anna Maria", " "]
    text = "Anna  Maria saw Anna's mail, not Annabel's or anna's."
    assert redact_text(text, names=names) == "[NAME] saw [NAME]'s mail, not Annabel's or anna's."
    assert find_in_text(text) == []


def test_what_is_replaced_is_counted_and_the_rows_given_stay():
    rows = [example("Hi", "Hello"), example("I am Ann", "Mail ann@example.com, Ann")]
    rows[1]["meta"] = {"id": 7}
    before = repr(rows)
    new, counts = redact(rows, names=iter(["Ann"]))
    assert repr(rows) == before
    assert new[1]["messages"][1] == {"role": "assistant", "content": "Mail [EMAIL], [NAME]"}
    assert new[1]["meta"] == {"id": 7}
    assert counts == {"EMAIL": 1, "IBAN": 0, "CARD": 0, "IP": 0, "PHONE": 0, "NAME": 2}
    assert "NAME" not in redact(rows)[1]
    with pytest.raises(RowsError, match=r"'Ann'.*a list of names"):
        redact(rows, names="Ann")


def test_reasoning_and_calls_are_searched_too():
    call = {"type": "function", "function": {"name": "mail", "arguments": {"to": "a@b.com"}}}
    card = {
        "type": "function",
        "function": {"name": "pay", "arguments": {"a@b.com": 4111111111111111}},
    }
    asked, answer = example("Write to her", "")["messages"]
    rows = [
        {"messages": [asked, answer | {"reasoning_content": "a@b.com", "tool_calls": [call, card]}]}
    ]
    (row,), counts = redact(rows)
    assert (counts["EMAIL"], counts["CARD"]) == (3, 1)
    assert row["messages"][1]["tool_calls"][1]["function"]["arguments"] == {"[EMAIL]": "[CARD]"}
    assert row["messages"][1]["reasoning_content"] == "[EMAIL]"
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"to": "[EMAIL]"}
