"""What `streamlit run` serves: the page, once every index is open and its model's shapes are compiled."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import streamlit as st

from medclip import jax_setup
from medclip.errors import UserError

jax_setup.start()  # before anything imports JAX

from medclip.app.cache import opened, warm  # noqa: E402
from medclip.app.config import from_words  # noqa: E402


@asynccontextmanager
async def _ready(_: st.App) -> AsyncIterator[None]:
    for folder, model in from_words(sys.argv[1:]).places().values():
        try:
            warm(opened(folder, model))
        except UserError as error:  # the page says it too, and opens the index when it is mended
            print(error, file=sys.stderr)
    yield


def _unexpected(_: Exception) -> bool:
    st.error("Something went wrong that should not have. The log of the app says what; reload the page to go on.")
    return True


app = st.App(Path(__file__).with_name("main.py"), lifespan=_ready, on_script_error=_unexpected)
