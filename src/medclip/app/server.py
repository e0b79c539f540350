"""What `streamlit run` serves: the app, once every index is open and its model's shapes are compiled."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st

from medclip import jax_setup
from medclip.errors import describe_error
from medclip.plain_text import printable

jax_setup.start()  # before anything imports JAX

from medclip.app.cache import cached_index, warm_up  # noqa: E402
from medclip.app.run import MAIN_SCRIPT, AppConfig  # noqa: E402
from medclip.app.text import SHOWN_ERRORS  # noqa: E402


@asynccontextmanager
async def _lifespan(_: st.App) -> AsyncIterator[None]:
    for location in AppConfig.from_json(sys.argv[1]).locations().values():
        try:
            warm_up(cached_index(location))
        except SHOWN_ERRORS as error:  # the page shows it too, and opens the index once it is repaired
            print(printable(describe_error(error)), file=sys.stderr)
    yield


def _on_error(_: Exception) -> bool:
    st.error("An unexpected error. The log of the app names it; reload the page to go on.")
    return True


app = st.App(MAIN_SCRIPT, lifespan=_lifespan, on_script_error=_on_error)
