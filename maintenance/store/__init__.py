"""The image store on disk: walking it and opening what lies in it."""
