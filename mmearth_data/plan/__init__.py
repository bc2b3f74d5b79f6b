"""The plan of a store: what was resolved for each location, and which location each row of the store is for.

``Plan`` (plan.py) keeps it in the folder ``_plan`` of the store; ``parts`` joins the tables it adopted, ``resolution``
knows what was resolved (``acquisitions`` is its file format), ``slots`` says who gets which row, ``rounds`` keeps that,
``gathering`` puts what was resolved into an order of shards, ``outcomes`` reads what came of them, ``given_up`` says
whom a person decided to go past, ``progress`` how far it is.
"""

from mmearth_data.adopted import PlanError
from mmearth_data.plan.given_up import GiveUpError, given_up
from mmearth_data.plan.plan import Plan, ShardSpec, Slot
from mmearth_data.plan.progress import StratumSummary, Summary

__all__ = ["GiveUpError", "Plan", "PlanError", "ShardSpec", "Slot", "StratumSummary", "Summary", "given_up"]
