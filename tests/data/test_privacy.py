import re
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sftlab.data.privacy import Finding, find_in_text, find_pii, luhn, redact, redact_text
from sftlab.data.rows import RowsError
from sftlab.world import example


def kinds_in(text, **options):
    return [kind for _, _, kind in find_in_text(text, **options)]


@st.composite
def cards(draw):
    """A payment card with a right last digit, plain or in a printed grouping."""
    groups = draw(st.sampled_from([(4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (13,)]))
    body = draw(st.from_regex(rf"[1-9][0-9]{{{sum(groups) - 2}}}", fullmatch=True))
    number = next(body + str(d) for d in range(10) if luhn(body + str(d)))
    ends = [sum(groups[: n + 1]) for n in range(len(groups))]
    parts = [number[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return draw(st.sampled_from(["", " ", "-"])).join(parts)


IBANS = (  # the examples of SWIFT's registry
    "GB29NWBK60161331926819", "DE89370400440532013000", "FR1420041010050500013M02606",
    "NL91ABNA0417164300", "NO9386011117947", "CH9300762011623852957", "ES9121000418450200051332",
    "MT84MALT011000012345MTLCAST001S", "PL61109010140000071219812874", "SE4550000000058398257466",
)  # fmt: skip
ibans = st.sampled_from([*IBANS, *(" ".join(re.findall(".{1,4}", one)) for one in IBANS)])


@st.composite
def with_one_digit_changed(draw, numbers):
    number = draw(numbers)
    place = draw(st.sampled_from([n for n, c in enumerate(number) if c.isdigit()]))
    digit = draw(st.sampled_from([d for d in "0123456789" if d != number[place]]))
    return number[:place] + digit + number[place + 1 :]


around = st.sampled_from(["{}", "My number is {}.", "({})", "pay {}, please", "x:\n{}\ny"])


@given(st.one_of(st.tuples(st.just("CARD"), cards()), st.tuples(st.just("IBAN"), ibans)), around)
def test_a_number_with_a_right_checksum_is_found_whole(kind_and_number, form):
    kind, number = kind_and_number
    text = form.format(number)
    start = text.index(number)
    assert find_in_text(text) == [(start, start + len(number), kind)]
    assert kinds_in(text.lower()) == [kind]


@given(with_one_digit_changed(cards()), with_one_digit_changed(ibans))
def test_a_number_with_one_digit_changed_is_none(card, iban):
    # Four groups of four before a last one of three may be a card with its security code.
    if card[0] != "0" and len(re.split("[ -]", card)) != 5:
        assert "CARD" not in kinds_in(card)
    assert "IBAN" not in kinds_in(iban)


def test_checksum_by_hand():
    # 4 5 3 9 -> from the right 9, 2*3=6, 5, 2*4=8: 28; with a last 1: 20
    assert not luhn("4539")
    assert luhn("4531")
    # The numbers that issuers publish for tests of shops
    assert all(map(luhn, ["378282246310005", "5555 5555 5555 4444", "6011111111111117"]))
    assert not luhn("")


@given(st.ip_addresses().map(str), around)
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


def test_findings_say_where_and_the_rows_given_stay():
    rows = [example("Hi", "Hello"), example("I am Ann", "Mail ann@example.com, Ann")]
    rows[1]["meta"] = {"id": 7}
    before = repr(rows)
    assert find_pii(rows, names=iter(["Ann"])) == [
        Finding(1, 0, 5, 8, "NAME", "Ann"),
        Finding(1, 1, 5, 20, "EMAIL", "ann@example.com"),
        Finding(1, 1, 22, 25, "NAME", "Ann"),
    ]
    new, counts = redact(rows, names=iter(["Ann"]))
    assert repr(rows) == before
    assert new[1]["messages"][1] == {"role": "assistant", "content": "Mail [EMAIL], [NAME]"}
    assert new[1]["meta"] == {"id": 7}
    assert counts == {"EMAIL": 1, "IBAN": 0, "CARD": 0, "IP": 0, "PHONE": 0, "NAME": 2}
    assert "NAME" not in redact(rows)[1]
    with pytest.raises(RowsError, match=r"'Ann'.*a list of names"):
        redact(rows, names="Ann")


@given(st.text(alphabet="a@.:-+ 0123456789[]EMAIL\n", max_size=60))
def test_findings_do_not_overlap(text):
    spans = find_in_text(text, names=["Ann"])
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
