"""API models' HTML as plain text."""

import pytest

from core.data.corpora.html_text import plain_text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<p>One.</p> <p>Two.</p>", "One.\n\nTwo."),
        ("plain, no tags", "plain, no tags"),
        ("<p>See <a href='https://a.b/c?d=e'> Learn <b>more</b> </a> .</p>", "See Learn more."),
        ("<p>Set ( <code>TRUE</code> ) , or <code>FALSE</code>; then wait.</p>", "Set (TRUE), or FALSE; then wait."),
        ("<p>a .csv file and .NET</p>", "a .csv file and .NET"),
        ("<p>x &lt;b&gt; &amp;amp; &quot;y&quot;&#160;z</p>", 'x <b> &amp; "y" z'),
        ("<p>First:</p> <ul> <li> <p>one</p> </li> <li>two</li> </ul> <p>End.</p>", "First:\n- one\n- two\n\nEnd."),
        ("<ol> <li> <p>a</p> </li> <li> <p>b</p> <p>more b</p> </li> </ol>", "1. a\n2. b\n  more b"),
        ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "- a\n  - b\n- c"),
        ("<dl> <dt>Term</dt> <dd> <p>Meaning.</p> </dd> </dl>", "Term\n  Meaning."),
        ("<note> <p>Careful.</p> </note> <p>Go.</p>", "Note: Careful.\n\nGo."),
        ("<note> <p>Note that it is so.</p> </note>", "Note that it is so."),
        ("<ul><li><important><p>Hot.</p></important></li></ul>", "- Important: Hot."),
        ("<p>arn:aws:<region>:<account-id>:x</p>", "arn:aws:<region>:<account-id>:x"),
        ("<p>if x < 5 and y > 3</p>", "if x < 5 and y > 3"),
        ("<pre><code>  {\n    &quot;a&quot;: 1\n  }\n</code></pre><p>z</p>", '{\n  "a": 1\n}\n\nz'),
        ("<!-- secret --><p>shown<br/>below</p>", "shown\nbelow"),
        ("<fullname>Amazon X</fullname> <p/> <p>Does  \n x.</p>", "Amazon X\n\nDoes x."),
        ("<p>a\u200bb\ufeff\u2028c\x07</p>", "ab c"),
        ("</ul></li><p>broken</ul> markup<li>item", "broken\n\nmarkup\n- item"),
        ("<table><tr><th>k</th><td>v</td></tr><tr><td>l</td><td>w</td></tr></table>", "k v\n\nl w"),
        ("<p> </p>", ""),
    ],
)
def test_reads_as_text(markup: str, text: str) -> None:
    assert plain_text(markup) == text


def test_an_unclosed_bracket_in_long_text_takes_no_long_search() -> None:
    assert plain_text("<a " + "x<" * 20_000).startswith("<a x<x<")
