# %% [markdown]
# # A client of the HTTP API
#
# You learn to search from another program, or another machine, with typed requests and answers. Research software, not
# for clinical use.
#
# In a terminal the service is `medclip serve --index INDEX`. Here it runs beside this notebook, on a port that is free.

# %%
import re
import subprocess
import sys

import httpx2
import pandas as pd

import toy
from medclip.serve.client import ApiError, Client

folder = toy.index().reader.folder
command = ["-m", "medclip.cli.main", "serve", "--index", str(folder), "--port", "0"]
service = subprocess.Popen(
    [sys.executable, *command],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
)
address = next(
    match[0]
    for line in service.stdout
    if (match := re.search(r"http://127\.0\.0\.1:\d+", line))
)

# %% [markdown]
# A method stands for each operation, and answers are pydantic forms: a program that reads a field which is not there
# fails in its type checker.

# %%
# by default 60 s: the first answer waits until the service has loaded its model
http = httpx2.Client(timeout=600)
client = Client(address, http=http)  # key="…" where the service has keys
client.info()

# %%
result = client.search("CT of the chest", k=3)
toy.show(
    [client.thumbnail(hit.id, hit.sha256) for hit in result.hits],
    [f"{hit.score:.2f} {hit.caption}" for hit in result.hits],
)

# %% [markdown]
# Beside each hit stands how probable it is that the right image is it or one above it, where the model has been
# calibrated; `note` says it in words.

# %%
print(result.note)
columns = {
    "id": [hit.id for hit in result.hits],
    "score": [hit.score for hit in result.hits],
}
pd.DataFrame(columns | {"right so far": result.probabilities or "unknown"})

# %% [markdown]
# An image in, probabilities of labels out. What a client sends is not logged.

# %%
client.classify(["CT", "MRI", "ultrasound"], id=result.hits[0].id).scores

# %% [markdown]
# A wrong request is refused in a sentence.

# %%
try:
    client.search("CT", filter={"shoe size": ["43"]})
except ApiError as error:
    print(error)

# %%
client.close()
service.terminate()
_ = service.communicate()
