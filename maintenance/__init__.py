"""imagewarden: keeps a site's store of uploaded images clean, small and watched."""

__version__ = "0.1.0"
