-- The settings of this session on which the results of functions depend.
select name, setting from pg_settings
 where name in ('TimeZone', 'DateStyle', 'IntervalStyle', 'bytea_output', 'extra_float_digits', 'default_text_search_config',
                'array_nulls', 'xmlbinary', 'xmloption', 'lc_monetary', 'lc_numeric', 'lc_time')
 order by name
