"""The course published: a site, slides, and what an instructor hands out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "building": ["build_site"],
        "decks": ["SlidesError", "find_chromium", "write_deck", "write_pdf"],
        "kit": ["write_kit"],
        "living": ["LivingError", "living_html", "tuned_model", "write_assets"],
    },
)
