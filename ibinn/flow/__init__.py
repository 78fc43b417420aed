"""Invertible networks: layers, their composition, and architectures as configs."""

from ibinn.flow.architectures import ARCHITECTURES, ArchitectureConfig, CifarConfig, SmallConfig
from ibinn.flow.base import FlowLayer, InvertibleNetwork, Sequential
from ibinn.flow.coupling import AffineCoupling, ArctanClamp, DoubleCoupling, TanhClamp
from ibinn.flow.downsampling import DownsamplingCoupling, HaarDownsampling, SpaceToDepth
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.flow.mixing import ActNorm, ChannelPermutation, ChannelRotation, SoftplusActNorm
from ibinn.flow.pooling import DctPooling

__all__ = [
    "ARCHITECTURES",
    "ActNorm",
    "AffineCoupling",
    "ArchitectureConfig",
    "ArctanClamp",
    "ChannelPermutation",
    "ChannelRotation",
    "CifarConfig",
    "DctPooling",
    "DoubleCoupling",
    "DownsamplingCoupling",
    "FlowLayer",
    "HaarDownsampling",
    "IbInn50Config",
    "InvertibleNetwork",
    "Sequential",
    "SmallConfig",
    "SoftplusActNorm",
    "SpaceToDepth",
    "TanhClamp",
]
