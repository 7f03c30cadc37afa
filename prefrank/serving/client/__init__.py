"""The client of `prefrank serve`: `Client` for ordinary code, `AsyncClient` inside an event loop.

    with Client("http://127.0.0.1:8000") as client:
        scores = client.score("What is yeast?", ["A fungus.", "No idea."])

Importing it loads neither torch nor FastAPI; httpx is loaded by the first client. A call is safe to send again, and
is, where a server is overloaded, gone or silent; several URLs are replicas of one model. A reply that the server cannot
score is a failure of that reply alone, and never a number.
"""

from prefrank.serving.client.answers import (
    Best,
    BestReply,
    Compared,
    Explanation,
    FailedReply,
    GroupFacts,
    Part,
    Place,
    Ranking,
    Scored,
    Scores,
    ServedModel,
    ServedModels,
)
from prefrank.serving.client.asking import AsyncClient
from prefrank.serving.client.blocking import Client
from prefrank.serving.client.client_options import ClientOptions

__all__ = [
    "AsyncClient",
    "Best",
    "BestReply",
    "Client",
    "ClientOptions",
    "Compared",
    "Explanation",
    "FailedReply",
    "GroupFacts",
    "Part",
    "Place",
    "Ranking",
    "Scored",
    "Scores",
    "ServedModel",
    "ServedModels",
]
