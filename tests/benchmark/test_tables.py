"""What puts measured tables into a document."""

from __future__ import annotations

from benchmarks.models import replaced, table


def test_tables_replace_those_with_their_title_and_no_others() -> None:
    def titled(title: str, value: str) -> str:
        return "\n".join([f"{title}:", "", *table(["clip", "dB"], [["a", value]])])

    document = f"# Text\n\n{titled('PSNR', '1')}\nbetween\n\n{titled('SSIM', '2')}\nafter: this stays\n"
    found = replaced(document, f"{titled('PSNR', '30')}\n{titled('flicker', '4')}")
    assert found == document.replace("| a | 1 |", "| a | 30 |")
    assert replaced(titled("PSNR", "1"), titled("PSNR", r"\1 30")) == titled("PSNR", r"\1 30")
