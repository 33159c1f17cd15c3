"""The settings of the thesis, chapter by chapter: `thesis/CHAPTER/SETTING/DEFENSE`."""
